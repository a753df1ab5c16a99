/* IP Helper for tests: what Microsoft documents of it, on a model of one machine's interfaces.

   Linked into the core in front of the real one.  The interfaces are the adapters of fake_wintun.c and those that a
   test makes (FakeInterface).  Each call is written down with what it was given. */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <iphlpapi.h>
#include <netioapi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __declspec(dllexport)
#define INTERFACES 64
#define ADDRESSES 256
#define ROUTES 256
#define NOTICES 64
#define JOURNAL 65536
#define NAME_SIZE 257

typedef struct {
    int is_present;
    ULONG mtu, metric, dad;
    BOOLEAN is_automatic;
} Row;

typedef struct {
    ULONG64 luid;
    GUID guid;
    WCHAR name[NAME_SIZE];
    int is_test_made, is_up;    /* the cable is in it; the link of an adapter is up during a session */
    int delay[2];               /* how many questions for a row go before it is there */
    Row rows[2];                /* IPv4, IPv6 */
    WCHAR servers[2][512];
} Interface;

typedef struct {
    void *callback, *context;
    int is_address, running;
} Notice;

static SRWLOCK lock = SRWLOCK_INIT;
static Interface interfaces[INTERFACES];
static MIB_UNICASTIPADDRESS_ROW addresses[ADDRESSES];
static int tentative[ADDRESSES];    /* questions until it is preferred, while the link is up; -1: a duplicate */
static int address_count;
static MIB_IPFORWARD_ROW2 routes[ROUTES];
static int route_count;
static Notice notices[NOTICES];
static char journal[JOURNAL];
static size_t journal_size;
static int row_delay[2], has_family[2] = {1, 1}, dad_questions, has_duplicates, has_dns_functions = 1, has_nci = 1;
static struct { char function[48]; DWORD error; int times; } failure;

static void note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(journal + journal_size, JOURNAL - journal_size, format, arguments);
    va_end(arguments);
    if (size > 0 && journal_size + (size_t) size + 2 < JOURNAL) {
        journal_size += (size_t) size;
        journal[journal_size++] = '\n';
        journal[journal_size] = 0;
    }
}

static DWORD ordered(const char *function) {
    if (failure.times == 0 || strcmp(function, failure.function) != 0) return NO_ERROR;
    failure.times--;
    return failure.error;
}

/* --- which interfaces there are --- */

typedef int (*OfLuid)(ULONG64, GUID *, WCHAR *);     /* 0: none; 2: its link is up */
typedef int (*OfName)(const WCHAR *, GUID *, WCHAR *, ULONG64 *);
typedef int (*Rename)(ULONG64, const WCHAR *);

static FARPROC wintun(const char *function) {
    HMODULE module = GetModuleHandleW(L"wintun.dll");
    return module == NULL ? NULL : GetProcAddress(module, function);
}

/* Of an interface that is there now. */
static Interface *of_luid(ULONG64 luid) {
    OfLuid ask = (OfLuid) (void *) wintun("FakeAdapterOfLuid");
    Interface *free_entry = NULL;
    GUID guid, gone;
    WCHAR name[NAME_SIZE], other[NAME_SIZE];
    for (int i = 0; i < INTERFACES; i++)
        if (interfaces[i].luid == luid && interfaces[i].is_test_made) return &interfaces[i];
    if (ask == NULL || !ask(luid, &guid, name)) return NULL;
    for (int i = 0; i < INTERFACES; i++) {
        if (interfaces[i].luid == luid) {
            wcscpy(interfaces[i].name, name);
            return &interfaces[i];
        }
        if (free_entry == NULL && !interfaces[i].is_test_made && !ask(interfaces[i].luid, &gone, other))
            free_entry = &interfaces[i];
    }
    if (free_entry == NULL) return NULL;
    memset(free_entry, 0, sizeof(*free_entry));
    free_entry->luid = luid;
    free_entry->guid = guid;
    free_entry->is_up = 1;
    wcscpy(free_entry->name, name);
    for (int family = 0; family < 2; family++) {
        free_entry->delay[family] = row_delay[family];
        free_entry->rows[family] =
            (Row) {.is_present = has_family[family], .mtu = 65535, .dad = 3, .metric = 5, .is_automatic = 1};
    }
    return free_entry;
}

static int is_connected(const Interface *entry) {
    OfLuid ask = (OfLuid) (void *) wintun("FakeAdapterOfLuid");
    GUID guid;
    WCHAR name[NAME_SIZE];
    return entry->is_up && (entry->is_test_made || (ask != NULL && ask(entry->luid, &guid, name) == 2));
}

static ULONG64 of_name(const WCHAR *name) {
    OfName ask = (OfName) (void *) wintun("FakeAdapter");
    GUID guid;
    WCHAR type[NAME_SIZE];
    ULONG64 luid = 0;
    for (int i = 0; i < INTERFACES; i++)
        if (interfaces[i].is_test_made && _wcsicmp(interfaces[i].name, name) == 0) return interfaces[i].luid;
    return ask != NULL && ask(name, &guid, type, &luid) == 1 ? luid : 0;
}

static const char *text_of(const SOCKADDR_INET *sockaddr, char *text) {
    if (sockaddr->si_family == AF_INET) inet_ntop(AF_INET, &sockaddr->Ipv4.sin_addr, text, 64);
    else if (sockaddr->si_family == AF_INET6) inet_ntop(AF_INET6, &sockaddr->Ipv6.sin6_addr, text, 64);
    else strcpy(text, "?");
    return text;
}

static int is_same_ip(const SOCKADDR_INET *one, const SOCKADDR_INET *other) {
    char first[64], second[64];
    return one->si_family == other->si_family && strcmp(text_of(one, first), text_of(other, second)) == 0;
}

/* --- notices: of a thread of Windows' own --- */

typedef struct {
    ULONG64 luid;
    int is_address;
} Change;

static DWORD WINAPI tell(void *argument) {
    Change change = *(Change *) argument;
    MIB_IPINTERFACE_ROW row = {.InterfaceLuid.Value = change.luid};
    MIB_UNICASTIPADDRESS_ROW address = {.InterfaceLuid.Value = change.luid};
    HeapFree(GetProcessHeap(), 0, argument);
    for (int i = 0; i < NOTICES; i++) {
        AcquireSRWLockExclusive(&lock);
        Notice notice = notices[i];
        int is_told = notice.callback != NULL && notice.is_address == change.is_address;
        if (is_told) notices[i].running++;
        ReleaseSRWLockExclusive(&lock);
        if (!is_told) continue;
        if (change.is_address) ((PUNICAST_IPADDRESS_CHANGE_CALLBACK) notice.callback)(notice.context, &address, MibAddInstance);
        else ((PIPINTERFACE_CHANGE_CALLBACK) notice.callback)(notice.context, &row, MibParameterNotification);
        AcquireSRWLockExclusive(&lock);
        notices[i].running--;
        ReleaseSRWLockExclusive(&lock);
    }
    return 0;
}

static void changed(ULONG64 luid, int is_address) {
    Change *change = HeapAlloc(GetProcessHeap(), 0, sizeof(Change));
    *change = (Change) {luid, is_address};
    CloseHandle(CreateThread(NULL, 0, tell, change, 0, NULL));
}

static DWORD notify(void *callback, void *context, int is_address, HANDLE *handle) {
    for (int i = 0; i < NOTICES; i++) {
        if (notices[i].callback != NULL || notices[i].running) continue;
        notices[i] = (Notice) {callback, context, is_address, 0};
        *handle = (HANDLE) (UINT_PTR) (i + 1);
        return NO_ERROR;
    }
    return ERROR_NOT_ENOUGH_MEMORY;
}

NETIO_STATUS WINAPI NotifyIpInterfaceChange(
    ADDRESS_FAMILY family, PIPINTERFACE_CHANGE_CALLBACK callback, void *context, BOOLEAN initial, HANDLE *handle) {
    DWORD error;
    AcquireSRWLockExclusive(&lock);
    note("NotifyIpInterfaceChange %d %d", family, initial);
    error = ordered(__func__);
    if (error == NO_ERROR) error = notify((void *) callback, context, 0, handle);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

NETIO_STATUS WINAPI NotifyUnicastIpAddressChange(
    ADDRESS_FAMILY family, PUNICAST_IPADDRESS_CHANGE_CALLBACK callback, void *context, BOOLEAN initial, HANDLE *handle) {
    DWORD error;
    AcquireSRWLockExclusive(&lock);
    note("NotifyUnicastIpAddressChange %d %d", family, initial);
    error = ordered(__func__);
    if (error == NO_ERROR) error = notify((void *) callback, context, 1, handle);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

NETIO_STATUS WINAPI CancelMibChangeNotify2(HANDLE handle) {
    int i = (int) (UINT_PTR) handle - 1, running;
    note("CancelMibChangeNotify2");
    if (i < 0 || i >= NOTICES) return ERROR_INVALID_PARAMETER;
    AcquireSRWLockExclusive(&lock);
    notices[i].callback = NULL;
    ReleaseSRWLockExclusive(&lock);
    do {
        AcquireSRWLockExclusive(&lock);
        running = notices[i].running;
        ReleaseSRWLockExclusive(&lock);
        if (running) Sleep(1);
    } while (running);
    return NO_ERROR;
}

/* --- rows of the families --- */

VOID WINAPI InitializeIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    memset(row, 0xa5, sizeof(*row));    /* whoever relies on more than is documented sees it */
    row->Family = 0;
    row->InterfaceLuid.Value = 0;
    row->InterfaceIndex = 0;
}

static Row *row_of(MIB_IPINTERFACE_ROW *row, Interface **entry, DWORD *error) {
    int is_ipv6 = row->Family == AF_INET6;
    if (row->Family != AF_INET && !is_ipv6) return *error = ERROR_INVALID_PARAMETER, NULL;
    *entry = of_luid(row->InterfaceLuid.Value);
    if (*entry == NULL) return *error = ERROR_FILE_NOT_FOUND, NULL;
    *error = ERROR_NOT_FOUND;
    return (*entry)->rows[is_ipv6].is_present && (*entry)->delay[is_ipv6] == 0 ? &(*entry)->rows[is_ipv6] : NULL;
}

/* What Windows answers; the fields that nobody here has to do with are not to be changed. */
static void fill_row(MIB_IPINTERFACE_ROW *row, const Interface *entry, const Row *values) {
    ADDRESS_FAMILY family = row->Family;
    memset(row, 0x5a, sizeof(*row));
    row->Family = family;
    row->InterfaceLuid.Value = entry->luid;
    row->InterfaceIndex = (NET_IFINDEX) (entry - interfaces) + 7;
    row->NlMtu = values->mtu;
    row->Metric = values->metric;
    row->UseAutomaticMetric = values->is_automatic;
    row->DadTransmits = values->dad;
    row->SitePrefixLength = 64;         /* as Windows fills it in, and refuses it for IPv4 */
    row->Connected = (BOOLEAN) is_connected(entry);
}

NETIO_STATUS WINAPI GetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    DWORD error, order;
    Interface *entry = NULL;
    AcquireSRWLockExclusive(&lock);
    Row *found = row_of(row, &entry, &error);
    if (entry != NULL && entry->delay[row->Family == AF_INET6] > 0) entry->delay[row->Family == AF_INET6]--;
    order = ordered(__func__);
    if (order != NO_ERROR) {
        error = order;
    } else if (found != NULL) {
        error = NO_ERROR;
        fill_row(row, entry, found);
    }
    note("GetIpInterfaceEntry %s %lu", row->Family == AF_INET ? "4" : "6", error);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

NETIO_STATUS WINAPI SetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    DWORD error, order;
    Interface *entry = NULL;
    MIB_IPINTERFACE_ROW expected = *row;
    AcquireSRWLockExclusive(&lock);
    Row *found = row_of(row, &entry, &error);
    order = ordered(__func__);
    if (order != NO_ERROR) {
        error = order;
    } else if (found != NULL) {
        fill_row(&expected, entry, found);
        expected.NlMtu = row->NlMtu;
        expected.Metric = row->Metric;
        expected.UseAutomaticMetric = row->UseAutomaticMetric;
        expected.DadTransmits = row->DadTransmits;
        if (row->Family == AF_INET) expected.SitePrefixLength = 0;
        if (memcmp(&expected, row, sizeof(expected)) != 0) error = ERROR_INVALID_PARAMETER;
        else if (row->NlMtu < (row->Family == AF_INET ? 352u : 1280u)) error = ERROR_INVALID_PARAMETER;
        else {
            error = NO_ERROR;
            *found = (Row) {1, row->NlMtu, row->Metric, row->DadTransmits, row->UseAutomaticMetric};
        }
    }
    note(
        "SetIpInterfaceEntry %s mtu=%lu metric=%lu automatic=%d dad=%lu %lu", row->Family == AF_INET ? "4" : "6",
        row->NlMtu, row->Metric, row->UseAutomaticMetric, row->DadTransmits, error);
    ReleaseSRWLockExclusive(&lock);
    if (error == NO_ERROR) changed(row->InterfaceLuid.Value, 0);
    return error;
}

/* --- addresses --- */

VOID WINAPI InitializeUnicastIpAddressEntry(MIB_UNICASTIPADDRESS_ROW *row) {
    memset(row, 0, sizeof(*row));
    row->PrefixOrigin = IpPrefixOriginUnchanged;
    row->SuffixOrigin = IpSuffixOriginUnchanged;
    row->ValidLifetime = row->PreferredLifetime = 0xffffffff;
    row->OnLinkPrefixLength = 255;
}

static int find_address(const MIB_UNICASTIPADDRESS_ROW *row) {
    for (int i = 0; i < address_count; i++)
        if (addresses[i].InterfaceLuid.Value == row->InterfaceLuid.Value
            && is_same_ip(&addresses[i].Address, &row->Address))
            return i;
    return -1;
}

static void network_of(const SOCKADDR_INET *address, int prefix, SOCKADDR_INET *network) {
    *network = *address;
    BYTE *bytes = address->si_family == AF_INET ? (BYTE *) &network->Ipv4.sin_addr : (BYTE *) &network->Ipv6.sin6_addr;
    for (int i = 0; i < (address->si_family == AF_INET ? 4 : 16); i++) {
        int bits = prefix - 8 * i;
        bytes[i] &= (BYTE) (bits >= 8 ? 0xff : bits <= 0 ? 0 : 0xff00 >> bits);
    }
}

static int find_route(const MIB_IPFORWARD_ROW2 *row) {
    for (int i = 0; i < route_count; i++)
        if (routes[i].InterfaceLuid.Value == row->InterfaceLuid.Value
            && routes[i].DestinationPrefix.PrefixLength == row->DestinationPrefix.PrefixLength
            && is_same_ip(&routes[i].DestinationPrefix.Prefix, &row->DestinationPrefix.Prefix)
            && is_same_ip(&routes[i].NextHop, &row->NextHop))
            return i;
    return -1;
}

static MIB_IPFORWARD_ROW2 route_of(const MIB_UNICASTIPADDRESS_ROW *row) {
    MIB_IPFORWARD_ROW2 route;
    memset(&route, 0, sizeof(route));
    route.InterfaceLuid = row->InterfaceLuid;
    network_of(&row->Address, row->OnLinkPrefixLength, &route.DestinationPrefix.Prefix);
    route.DestinationPrefix.PrefixLength = row->OnLinkPrefixLength;
    route.NextHop.si_family = row->Address.si_family;
    route.Protocol = MIB_IPPROTO_LOCAL;
    return route;
}

/* An address that an interface without a link has is not given to another. */
static int is_elsewhere(const MIB_UNICASTIPADDRESS_ROW *row) {
    for (int i = 0; i < address_count; i++) {
        Interface *other = of_luid(addresses[i].InterfaceLuid.Value);
        if (other != NULL && !is_connected(other) && is_same_ip(&addresses[i].Address, &row->Address)) return 1;
    }
    return 0;
}

NETIO_STATUS WINAPI CreateUnicastIpAddressEntry(const MIB_UNICASTIPADDRESS_ROW *row) {
    char text[64];
    DWORD error = ordered(__func__);
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_luid(row->InterfaceLuid.Value);
    int is_ipv6 = row->Address.si_family == AF_INET6;
    if (error == NO_ERROR) {
        if (entry == NULL) error = ERROR_FILE_NOT_FOUND;
        else if (!entry->rows[is_ipv6].is_present || entry->delay[is_ipv6]) error = ERROR_NOT_FOUND;
        else if (row->OnLinkPrefixLength > (is_ipv6 ? 128 : 32) && row->OnLinkPrefixLength != 255)
            error = ERROR_INVALID_PARAMETER;
        else if ((row->PrefixOrigin == IpPrefixOriginUnchanged) != (row->SuffixOrigin == IpSuffixOriginUnchanged)
                 || row->PreferredLifetime > row->ValidLifetime || row->SkipAsSource)
            error = ERROR_INVALID_PARAMETER;
        else if (find_address(row) >= 0 || is_elsewhere(row)) error = ERROR_OBJECT_ALREADY_EXISTS;
        else {
            tentative[address_count] = has_duplicates ? -1 : entry->rows[is_ipv6].dad ? dad_questions : 0;
            addresses[address_count] = *row;
            addresses[address_count].PrefixOrigin = IpPrefixOriginManual;
            address_count++;
            routes[route_count++] = route_of(row);
        }
    }
    note("CreateUnicastIpAddressEntry %s/%d dad=%d %lu", text_of(&row->Address, text), row->OnLinkPrefixLength,
         row->DadState, error);
    ReleaseSRWLockExclusive(&lock);
    if (error == NO_ERROR) changed(row->InterfaceLuid.Value, 1);
    return error;
}

NETIO_STATUS WINAPI DeleteUnicastIpAddressEntry(const MIB_UNICASTIPADDRESS_ROW *row) {
    char text[64];
    DWORD error = ERROR_NOT_FOUND;
    AcquireSRWLockExclusive(&lock);
    int i = find_address(row);
    if (i >= 0) {
        MIB_IPFORWARD_ROW2 own = route_of(&addresses[i]);
        int route = find_route(&own);
        if (route >= 0) routes[route] = routes[--route_count];
        address_count--;
        addresses[i] = addresses[address_count];
        tentative[i] = tentative[address_count];
        error = NO_ERROR;
    }
    note("DeleteUnicastIpAddressEntry %s %lu", text_of(&row->Address, text), error);
    ReleaseSRWLockExclusive(&lock);
    if (error == NO_ERROR) changed(row->InterfaceLuid.Value, 1);
    return error;
}

static void settle(int i) {
    Interface *entry = of_luid(addresses[i].InterfaceLuid.Value);
    addresses[i].DadState = IpDadStateTentative;
    if (entry == NULL || !is_connected(entry)) return;
    if (tentative[i] > 0) tentative[i]--;
    if (tentative[i] <= 0) addresses[i].DadState = tentative[i] == 0 ? IpDadStatePreferred : IpDadStateDuplicate;
}

NETIO_STATUS WINAPI GetUnicastIpAddressEntry(MIB_UNICASTIPADDRESS_ROW *row) {
    char text[64];
    DWORD error = ERROR_NOT_FOUND;
    AcquireSRWLockExclusive(&lock);
    int i = find_address(row);
    if (i >= 0) {
        settle(i);
        *row = addresses[i];
        error = NO_ERROR;
    }
    note("GetUnicastIpAddressEntry %s dad=%d %lu", text_of(&row->Address, text), i >= 0 ? (int) row->DadState : -1, error);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

NETIO_STATUS WINAPI GetUnicastIpAddressTable(ADDRESS_FAMILY family, MIB_UNICASTIPADDRESS_TABLE **table) {
    MIB_UNICASTIPADDRESS_TABLE *found = malloc(sizeof(*found) + ADDRESSES * sizeof(addresses[0]));
    found->NumEntries = 0;
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < address_count; i++)
        if ((family == AF_UNSPEC || family == addresses[i].Address.si_family)
            && of_luid(addresses[i].InterfaceLuid.Value) != NULL)
            found->Table[found->NumEntries++] = addresses[i];
    ReleaseSRWLockExclusive(&lock);
    if (found->NumEntries == 0) {
        free(found);
        return ERROR_NOT_FOUND;
    }
    *table = found;
    return NO_ERROR;
}

VOID WINAPI FreeMibTable(void *table) {
    free(table);
}

/* --- routes --- */

VOID WINAPI InitializeIpForwardEntry(MIB_IPFORWARD_ROW2 *row) {
    memset(row, 0, sizeof(*row));
    row->ValidLifetime = row->PreferredLifetime = 0xffffffff;
    row->Loopback = row->AutoconfigureAddress = row->Publish = row->Immortal = TRUE;
    row->DestinationPrefix.PrefixLength = 255;
    row->Metric = 0xffffffff;
    row->Protocol = MIB_IPPROTO_NETMGMT;
}

NETIO_STATUS WINAPI CreateIpForwardEntry2(const MIB_IPFORWARD_ROW2 *row) {
    char text[64], hop[64];
    SOCKADDR_INET network;
    DWORD error = ordered(__func__);
    AcquireSRWLockExclusive(&lock);
    network_of(&row->DestinationPrefix.Prefix, row->DestinationPrefix.PrefixLength, &network);
    if (error == NO_ERROR) {
        Interface *entry = of_luid(row->InterfaceLuid.Value);
        if (entry == NULL) error = ERROR_FILE_NOT_FOUND;
        else if (!entry->rows[network.si_family == AF_INET6].is_present) error = ERROR_NOT_FOUND;
        else if (row->Protocol != MIB_IPPROTO_NETMGMT || row->ValidLifetime != 0xffffffff) error = ERROR_INVALID_PARAMETER;
        else if (!is_same_ip(&network, &row->DestinationPrefix.Prefix) || row->NextHop.si_family != network.si_family)
            error = ERROR_INVALID_PARAMETER;
        else if (find_route(row) >= 0) error = ERROR_OBJECT_ALREADY_EXISTS;
        else routes[route_count++] = *row;
    }
    note("CreateIpForwardEntry2 %s/%d via %s metric=%lu %lu", text_of(&row->DestinationPrefix.Prefix, text),
         row->DestinationPrefix.PrefixLength, text_of(&row->NextHop, hop), row->Metric, error);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

NETIO_STATUS WINAPI DeleteIpForwardEntry2(const MIB_IPFORWARD_ROW2 *row) {
    char text[64];
    DWORD error = ERROR_NOT_FOUND;
    AcquireSRWLockExclusive(&lock);
    int i = find_route(row);
    if (i >= 0) {
        routes[i] = routes[--route_count];
        error = NO_ERROR;
    }
    note("DeleteIpForwardEntry2 %s/%d %lu", text_of(&row->DestinationPrefix.Prefix, text),
         row->DestinationPrefix.PrefixLength, error);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

NETIO_STATUS WINAPI GetIpForwardTable2(ADDRESS_FAMILY family, MIB_IPFORWARD_TABLE2 **table) {
    MIB_IPFORWARD_TABLE2 *found = malloc(sizeof(*found) + ROUTES * sizeof(routes[0]));
    found->NumEntries = 0;
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < route_count; i++)
        if (family == AF_UNSPEC || family == routes[i].DestinationPrefix.Prefix.si_family)
            found->Table[found->NumEntries++] = routes[i];
    ReleaseSRWLockExclusive(&lock);
    *table = found;
    return NO_ERROR;
}

/* --- interfaces --- */

NETIO_STATUS WINAPI GetIfEntry2(MIB_IF_ROW2 *row) {
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_luid(row->InterfaceLuid.Value);
    if (entry != NULL) {
        memset(row, 0, sizeof(*row));
        row->InterfaceLuid.Value = entry->luid;
        row->PhysicalAddressLength = entry->is_test_made ? 6 : 0;
        memcpy(row->PhysicalAddress, "\x02\x00\x5e\x00\x53\x07", 6);
        row->AdminStatus = NET_IF_ADMIN_STATUS_UP;
        row->OperStatus = is_connected(entry) ? IfOperStatusUp : IfOperStatusDown;
        row->MediaConnectState = is_connected(entry) ? MediaConnectStateConnected : MediaConnectStateDisconnected;
        row->InUcastPkts = 1, row->InNUcastPkts = 10, row->OutUcastPkts = 2, row->OutNUcastPkts = 20;
        row->InOctets = 300, row->OutOctets = 400, row->InErrors = 5, row->OutErrors = 6;
        row->InDiscards = 7, row->OutDiscards = 8;
    }
    ReleaseSRWLockExclusive(&lock);
    return entry != NULL ? NO_ERROR : ERROR_FILE_NOT_FOUND;
}

NETIO_STATUS WINAPI ConvertInterfaceLuidToIndex(const NET_LUID *luid, NET_IFINDEX *index) {
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_luid(luid->Value);
    *index = entry != NULL ? (NET_IFINDEX) (entry - interfaces) + 7 : 0;
    ReleaseSRWLockExclusive(&lock);
    return entry != NULL ? NO_ERROR : ERROR_FILE_NOT_FOUND;
}

NETIO_STATUS WINAPI ConvertInterfaceLuidToGuid(const NET_LUID *luid, GUID *guid) {
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_luid(luid->Value);
    if (entry != NULL) *guid = entry->guid;
    ReleaseSRWLockExclusive(&lock);
    return entry != NULL ? NO_ERROR : ERROR_FILE_NOT_FOUND;
}

NETIO_STATUS WINAPI ConvertInterfaceGuidToLuid(const GUID *guid, NET_LUID *luid) {
    luid->Value = 0;
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < INTERFACES; i++)
        if (interfaces[i].luid && memcmp(&interfaces[i].guid, guid, sizeof(*guid)) == 0) luid->Value = interfaces[i].luid;
    ReleaseSRWLockExclusive(&lock);
    return luid->Value ? NO_ERROR : ERROR_FILE_NOT_FOUND;
}

NETIO_STATUS WINAPI ConvertInterfaceLuidToAlias(const NET_LUID *luid, WCHAR *alias, SIZE_T length) {
    DWORD error = ERROR_FILE_NOT_FOUND;
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_luid(luid->Value);
    if (entry != NULL) {
        error = wcslen(entry->name) < length ? NO_ERROR : ERROR_NOT_ENOUGH_MEMORY;
        if (error == NO_ERROR) wcscpy(alias, entry->name);
    }
    ReleaseSRWLockExclusive(&lock);
    return error;
}

NETIO_STATUS WINAPI ConvertInterfaceAliasToLuid(const WCHAR *alias, NET_LUID *luid) {
    AcquireSRWLockExclusive(&lock);
    luid->Value = of_name(alias);
    ReleaseSRWLockExclusive(&lock);
    return luid->Value ? NO_ERROR : ERROR_INVALID_PARAMETER;
}

/* --- functions that are looked up by name --- */

typedef struct {
    ULONG Version;
    ULONG64 Flags;
    WCHAR *Domain, *NameServer, *SearchList;
    ULONG RegistrationEnabled, RegisterAdapterName, EnableLLMNR, QueryAdapterName;
    WCHAR *ProfileNameServer;
} Settings;

static Interface *of_guid(const GUID *guid) {
    for (int i = 0; i < INTERFACES; i++)
        if (interfaces[i].luid && memcmp(&interfaces[i].guid, guid, sizeof(*guid)) == 0) return &interfaces[i];
    return NULL;
}

static DWORD WINAPI set_dns(GUID guid, const Settings *settings) {
    DWORD error = ERROR_FILE_NOT_FOUND;
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_guid(&guid);
    if (settings->Version != 1) error = ERROR_INVALID_PARAMETER;
    else if (settings->Domain || settings->SearchList || settings->ProfileNameServer || settings->Flags & ~3ull)
        error = ERROR_INVALID_PARAMETER;
    else if (entry != NULL && !entry->rows[settings->Flags & 1].is_present) error = ERROR_NOT_FOUND;
    else if (entry != NULL && settings->Flags & 2) {
        wcscpy(entry->servers[settings->Flags & 1], settings->NameServer);
        error = NO_ERROR;
    }
    note("SetInterfaceDnsSettings flags=%llu %ls %lu", settings->Flags, settings->NameServer, error);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

static DWORD WINAPI get_dns(GUID guid, Settings *settings) {
    DWORD error = ERROR_FILE_NOT_FOUND;
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_guid(&guid);
    if (settings->Version != 1) error = ERROR_INVALID_PARAMETER;
    else if (entry != NULL && !entry->rows[settings->Flags & 1].is_present) error = ERROR_NOT_FOUND;
    else if (entry != NULL) {
        const WCHAR *servers = entry->servers[settings->Flags & 1];
        settings->NameServer = servers[0] ? _wcsdup(servers) : NULL;
        error = NO_ERROR;
    }
    ReleaseSRWLockExclusive(&lock);
    return error;
}

static void WINAPI free_dns(Settings *settings) {
    free(settings->NameServer);
}

static BOOL WINAPI flush_dns(void) {
    note("DnsFlushResolverCache");
    return TRUE;
}

static DWORD WINAPI set_name(const GUID *guid, const WCHAR *name) {
    char text[3 * NAME_SIZE] = "";
    DWORD error = ERROR_FILE_NOT_FOUND;
    Rename rename_adapter = (Rename) (void *) wintun("FakeRename");
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_guid(guid);
    if (entry != NULL && of_name(name) != 0) error = ERROR_DUP_NAME;
    else if (entry != NULL) {
        error = NO_ERROR;
        if (entry->is_test_made) wcscpy(entry->name, name);
        else rename_adapter(entry->luid, name);
    }
    WideCharToMultiByte(CP_UTF8, 0, name, -1, text, sizeof(text), NULL, NULL);
    note("NciSetConnectionName %s %lu", text, error);
    ReleaseSRWLockExclusive(&lock);
    return error;
}

#define NCI ((HMODULE) (UINT_PTR) 0x4e434900)
#define DNSAPI ((HMODULE) (UINT_PTR) 0x444e5300)
LONG WINAPI LdrGetProcedureAddress(HMODULE module, void *name, ULONG ordinal, void **address);
typedef struct { USHORT Length, MaximumLength; char *Buffer; } AnsiString;

static FARPROC real(HMODULE module, const char *name) {
    AnsiString string = {(USHORT) strlen(name), (USHORT) strlen(name), (char *) name};
    void *address = NULL;
    return LdrGetProcedureAddress(module, &string, 0, &address) == 0 ? (FARPROC) address : NULL;
}

static FARPROC WINAPI fake_GetProcAddress(HMODULE module, const char *name) {
    static const struct { const char *name; void *function; } fakes[] = {
        {"SetInterfaceDnsSettings", (void *) set_dns}, {"GetInterfaceDnsSettings", (void *) get_dns},
        {"FreeInterfaceDnsSettings", (void *) free_dns}, {"DnsFlushResolverCache", (void *) flush_dns},
        {"NciSetConnectionName", (void *) set_name},
    };
    for (int i = 0; (UINT_PTR) name > 0xffff && i < 5; i++)
        if (strcmp(name, fakes[i].name) == 0)
            return i < 3 && !has_dns_functions ? NULL : (FARPROC) fakes[i].function;
    return real(module, name);
}

static HMODULE WINAPI fake_LoadLibraryExW(const WCHAR *path, HANDLE file, DWORD flags) {
    typedef HMODULE(WINAPI * Load)(const WCHAR *, HANDLE, DWORD);
    if (_wcsicmp(path, L"nci.dll") == 0) return has_nci ? NCI : NULL;
    if (_wcsicmp(path, L"dnsapi.dll") == 0) return DNSAPI;
    return ((Load) (void *) real(GetModuleHandleW(L"kernel32.dll"), "LoadLibraryExW"))(path, file, flags);
}

FARPROC(WINAPI *__imp_GetProcAddress)(HMODULE, const char *) = fake_GetProcAddress;
HMODULE(WINAPI *__imp_LoadLibraryExW)(const WCHAR *, HANDLE, DWORD) = fake_LoadLibraryExW;

/* --- what a test orders and asks --- */

EXPORT void FakeIpReset(void) {
    AcquireSRWLockExclusive(&lock);
    memset(interfaces, 0, sizeof(interfaces));
    address_count = route_count = 0;
    journal_size = 0;
    journal[0] = 0;
    row_delay[0] = row_delay[1] = dad_questions = has_duplicates = failure.times = 0;
    has_family[0] = has_family[1] = has_dns_functions = has_nci = 1;
    ReleaseSRWLockExclusive(&lock);
}

EXPORT void FakeIpOptions(
    int delay4, int delay6, int ipv4, int ipv6, int questions, int duplicates, int dns_functions, int nci) {
    row_delay[0] = delay4;
    row_delay[1] = delay6;
    has_family[0] = ipv4;
    has_family[1] = ipv6;
    dad_questions = questions;
    has_duplicates = duplicates;
    has_dns_functions = dns_functions;
    has_nci = nci;
}

EXPORT void FakeIpFail(const char *function, DWORD error, int times) {
    snprintf(failure.function, sizeof(failure.function), "%s", function);
    failure.error = error;
    failure.times = times;
}

/* Another interface, as of a network card or of a TAP. */
EXPORT void FakeInterface(ULONG64 luid, const GUID *guid, const WCHAR *name) {
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < INTERFACES; i++) {
        if (interfaces[i].luid) continue;
        interfaces[i].luid = luid;
        interfaces[i].guid = *guid;
        interfaces[i].is_test_made = interfaces[i].is_up = 1;
        wcscpy(interfaces[i].name, name);
        for (int family = 0; family < 2; family++)
            interfaces[i].rows[family] = (Row) {.is_present = 1, .mtu = 1500, .dad = 3, .metric = 5, .is_automatic = 1};
        break;
    }
    ReleaseSRWLockExclusive(&lock);
}

EXPORT void FakeInterfaceGone(ULONG64 luid) {
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < INTERFACES; i++)
        if (interfaces[i].luid == luid) memset(&interfaces[i], 0, sizeof(interfaces[i]));
    ReleaseSRWLockExclusive(&lock);
    changed(luid, 0);
}

/* An address that Windows has given an interface by itself. */
EXPORT void FakeIpAutomatic(ULONG64 luid, const char *ip, int prefix) {
    MIB_UNICASTIPADDRESS_ROW row;
    InitializeUnicastIpAddressEntry(&row);
    row.InterfaceLuid.Value = luid;
    row.Address.si_family = AF_INET6;
    inet_pton(AF_INET6, ip, &row.Address.Ipv6.sin6_addr);
    row.OnLinkPrefixLength = (UINT8) prefix;
    row.PrefixOrigin = IpPrefixOriginWellKnown;
    row.SuffixOrigin = IpSuffixOriginLinkLayerAddress;
    AcquireSRWLockExclusive(&lock);
    tentative[address_count] = 0;
    addresses[address_count++] = row;
    ReleaseSRWLockExclusive(&lock);
    changed(luid, 1);
}

/* Windows' DHCP client gives back what it has for an interface, and takes another address, unless that is NULL. */
void FakeIpLease(ULONG64 luid, const BYTE *ip, int prefix) {
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < address_count; i++) {
        if (addresses[i].InterfaceLuid.Value != luid || addresses[i].PrefixOrigin != IpPrefixOriginDhcp) continue;
        address_count--;
        addresses[i] = addresses[address_count];
        tentative[i--] = tentative[address_count];
    }
    if (ip != NULL) {
        MIB_UNICASTIPADDRESS_ROW *row = &addresses[address_count];
        InitializeUnicastIpAddressEntry(row);
        row->InterfaceLuid.Value = luid;
        row->Address.si_family = AF_INET;
        memcpy(&row->Address.Ipv4.sin_addr, ip, 4);
        row->OnLinkPrefixLength = (UINT8) prefix;
        row->PrefixOrigin = IpPrefixOriginDhcp;
        row->SuffixOrigin = IpSuffixOriginDhcp;
        tentative[address_count++] = 0;
    }
    ReleaseSRWLockExclusive(&lock);
    changed(luid, 1);
}

/* What the rows of an interface are: of IPv4 and of IPv6. */
EXPORT int FakeIpRows(ULONG64 luid, ULONG *values) {
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_luid(luid);
    for (int family = 0; family < 2 && entry != NULL; family++) {
        const Row *row = &entry->rows[family];
        ULONG found[] = {row->mtu, row->is_automatic ? 0xffffffff : row->metric, row->dad};
        memcpy(values + 3 * family, found, sizeof(found));
    }
    ReleaseSRWLockExclusive(&lock);
    return entry != NULL;
}

/* Somebody else does something to an interface. */
EXPORT void FakeIpChanged(ULONG64 luid, int is_up) {
    AcquireSRWLockExclusive(&lock);
    Interface *entry = of_luid(luid);
    if (entry != NULL) entry->is_up = is_up;
    ReleaseSRWLockExclusive(&lock);
    changed(luid, 0);
}

/* What was called since the last time. */
EXPORT void FakeIpCalls(char *text, size_t capacity) {
    AcquireSRWLockExclusive(&lock);
    snprintf(text, capacity, "%s", journal);
    journal_size = 0;
    journal[0] = 0;
    ReleaseSRWLockExclusive(&lock);
}

EXPORT void FakeIpRoutes(char *text, size_t capacity) {
    char network[64], hop[64];
    size_t size = 0;
    text[0] = 0;
    AcquireSRWLockExclusive(&lock);
    for (int i = 0; i < route_count && size + 160 < capacity; i++)
        size += (size_t) sprintf(
            text + size, "%s/%d via %s\n", text_of(&routes[i].DestinationPrefix.Prefix, network),
            routes[i].DestinationPrefix.PrefixLength, text_of(&routes[i].NextHop, hop));
    ReleaseSRWLockExclusive(&lock);
}

EXPORT int FakeIpNotices(void) {
    int count = 0;
    for (int i = 0; i < NOTICES; i++) count += notices[i].callback != NULL;
    return count;
}
