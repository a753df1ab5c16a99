"""Configuration of an interface of Windows by IP Helper (inline).

An interface has a row for each of IPv4 and IPv6, which come a moment after it; that of IPv6 never, where IPv6 is
switched off.
"""
from libc.errno cimport EINVAL, ENODEV, ENOMEM, EOPNOTSUPP
from libc.stdint cimport int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strlen

from tuntap._os.native cimport (
    Address, CHANGE_LOST, CHANGE_NONE, Change, Handle, MAC_SIZE, NAME_SIZE, PATH_CONTROL, SETTING_CARRIER,
    SETTING_INDEX, SETTING_METRIC, SETTING_MTU, SETTING_MTU_V6, SETTING_RUNNING, SETTING_UP, STATISTIC_RX_BYTES,
    STATISTIC_RX_DROPPED, STATISTIC_RX_ERRORS, STATISTIC_RX_PACKETS, STATISTIC_TX_BYTES, STATISTIC_TX_DROPPED,
    STATISTIC_TX_ERRORS, STATISTIC_TX_PACKETS, Watch,
)
from tuntap._os.win32 cimport *

cdef extern from *:
    """
    #include <iphlpapi.h>
    #include <netioapi.h>

    /* Windows 10 from build 19041 on; Microsoft's headers have them under other conditions than MinGW's. */
    typedef struct {
        ULONG Version;
        ULONG64 Flags;
        WCHAR *Domain, *NameServer, *SearchList;
        ULONG RegistrationEnabled, RegisterAdapterName, EnableLLMNR, QueryAdapterName;
        WCHAR *ProfileNameServer;
    } TuntapDnsSettings;
    #define TUNTAP_DNS_IPV6 1
    #define TUNTAP_DNS_NAMESERVER 2
    typedef DWORD (WINAPI *TuntapSetDns)(GUID interface_guid, const TuntapDnsSettings *settings);
    typedef DWORD (WINAPI *TuntapGetDns)(GUID interface_guid, TuntapDnsSettings *settings);
    typedef void (WINAPI *TuntapFreeDns)(TuntapDnsSettings *settings);
    typedef BOOL (WINAPI *TuntapFlushDns)(void);
    typedef DWORD (WINAPI *TuntapSetName)(const GUID *interface_guid, const WCHAR *name);

    static void *tuntap_find(const WCHAR *library, const char *function) {
        HMODULE module = LoadLibraryExW(library, NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
        return module == NULL ? NULL : (void *) GetProcAddress(module, function);
    }
    /* Where the registry has the settings of an interface. */
    #define TUNTAP_KEY_SIZE 128
    static void tuntap_key_of_interface(WCHAR *key, const GUID *guid, int is_ipv6) {
        _snwprintf(
            key, TUNTAP_KEY_SIZE, L"SYSTEM\\\\CurrentControlSet\\\\Services\\\\%ls\\\\Parameters\\\\Interfaces\\\\"
            L"{%08lX-%04X-%04X-%02X%02X-%02X%02X%02X%02X%02X%02X}", is_ipv6 ? L"Tcpip6" : L"Tcpip", guid->Data1,
            guid->Data2, guid->Data3, guid->Data4[0], guid->Data4[1], guid->Data4[2], guid->Data4[3],
            guid->Data4[4], guid->Data4[5], guid->Data4[6], guid->Data4[7]);
        key[TUNTAP_KEY_SIZE - 1] = 0;
    }
    #define TUNTAP_NAME_SERVER L"NameServer"
    #define tuntap_set_dns() ((TuntapSetDns) tuntap_find(L"iphlpapi.dll", "SetInterfaceDnsSettings"))
    #define tuntap_get_dns() ((TuntapGetDns) tuntap_find(L"iphlpapi.dll", "GetInterfaceDnsSettings"))
    #define tuntap_free_dns() ((TuntapFreeDns) tuntap_find(L"iphlpapi.dll", "FreeInterfaceDnsSettings"))
    #define tuntap_flush_dns() ((TuntapFlushDns) tuntap_find(L"dnsapi.dll", "DnsFlushResolverCache"))
    #define tuntap_set_name() ((TuntapSetName) tuntap_find(L"nci.dll", "NciSetConnectionName"))
    """
    ctypedef struct DnsSettings "TuntapDnsSettings":
        ULONG Version
        ULONG64 Flags
        WCHAR *NameServer
    enum:
        KEY_SIZE "TUNTAP_KEY_SIZE"
    void key_of_interface "tuntap_key_of_interface"(WCHAR *key, const GUID *guid, bint is_ipv6) nogil
    const WCHAR *NAME_SERVER "TUNTAP_NAME_SERVER"
    ULONG64 TUNTAP_DNS_IPV6
    ULONG64 TUNTAP_DNS_NAMESERVER
    ctypedef DWORD (*SetDns "TuntapSetDns")(GUID guid, const DnsSettings *settings) noexcept nogil
    ctypedef DWORD (*GetDns "TuntapGetDns")(GUID guid, DnsSettings *settings) noexcept nogil
    ctypedef void (*FreeDns "TuntapFreeDns")(DnsSettings *settings) noexcept nogil
    ctypedef BOOL (*FlushDns "TuntapFlushDns")() noexcept nogil
    ctypedef DWORD (*SetName "TuntapSetName")(const GUID *guid, const WCHAR *name) noexcept nogil
    SetDns find_set_dns "tuntap_set_dns"() nogil
    GetDns find_get_dns "tuntap_get_dns"() nogil
    FreeDns find_free_dns "tuntap_free_dns"() nogil
    FlushDns find_flush_dns "tuntap_flush_dns"() nogil
    SetName find_set_name "tuntap_set_name"() nogil

cdef extern from "<netioapi.h>" nogil:
    ctypedef uint16_t ADDRESS_FAMILY
    ADDRESS_FAMILY AF_UNSPEC
    ADDRESS_FAMILY AF_INET
    ADDRESS_FAMILY AF_INET6
    ctypedef union NET_LUID:
        uint64_t Value
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        in_addr sin_addr
    cdef struct sockaddr_in6:
        in6_addr sin6_addr
    ctypedef union SOCKADDR_INET:
        sockaddr_in Ipv4
        sockaddr_in6 Ipv6
        ADDRESS_FAMILY si_family
    ctypedef struct MIB_IPINTERFACE_ROW:
        ADDRESS_FAMILY Family
        NET_LUID InterfaceLuid
        BOOLEAN UseAutomaticMetric
        BOOLEAN Connected
        ULONG DadTransmits
        ULONG SitePrefixLength
        ULONG Metric
        ULONG NlMtu
    void InitializeIpInterfaceEntry(MIB_IPINTERFACE_ROW *row)
    DWORD GetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row)
    DWORD SetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row)

    ctypedef int NL_DAD_STATE
    NL_DAD_STATE IpDadStateInvalid
    NL_DAD_STATE IpDadStateTentative
    NL_DAD_STATE IpDadStateDuplicate
    NL_DAD_STATE IpDadStateDeprecated
    NL_DAD_STATE IpDadStatePreferred
    int IpPrefixOriginWellKnown
    ctypedef struct MIB_UNICASTIPADDRESS_ROW:
        SOCKADDR_INET Address
        NET_LUID InterfaceLuid
        int PrefixOrigin
        uint8_t OnLinkPrefixLength
        NL_DAD_STATE DadState
    ctypedef struct MIB_UNICASTIPADDRESS_TABLE:
        ULONG NumEntries
        MIB_UNICASTIPADDRESS_ROW Table[1]
    void InitializeUnicastIpAddressEntry(MIB_UNICASTIPADDRESS_ROW *row)
    DWORD GetUnicastIpAddressTable(ADDRESS_FAMILY family, MIB_UNICASTIPADDRESS_TABLE **table)
    DWORD GetUnicastIpAddressEntry(MIB_UNICASTIPADDRESS_ROW *row)
    DWORD CreateUnicastIpAddressEntry(const MIB_UNICASTIPADDRESS_ROW *row)
    DWORD DeleteUnicastIpAddressEntry(const MIB_UNICASTIPADDRESS_ROW *row)

    ctypedef struct IP_ADDRESS_PREFIX:
        SOCKADDR_INET Prefix
        uint8_t PrefixLength
    int MIB_IPPROTO_NETMGMT
    ctypedef struct MIB_IPFORWARD_ROW2:
        NET_LUID InterfaceLuid
        IP_ADDRESS_PREFIX DestinationPrefix
        SOCKADDR_INET NextHop
        ULONG Metric
        int Protocol
    ctypedef struct MIB_IPFORWARD_TABLE2:
        ULONG NumEntries
        MIB_IPFORWARD_ROW2 Table[1]
    void InitializeIpForwardEntry(MIB_IPFORWARD_ROW2 *row)
    DWORD GetIpForwardTable2(ADDRESS_FAMILY family, MIB_IPFORWARD_TABLE2 **table)
    DWORD CreateIpForwardEntry2(const MIB_IPFORWARD_ROW2 *row)
    DWORD DeleteIpForwardEntry2(const MIB_IPFORWARD_ROW2 *row)

    int IF_OPER_STATUS_UP "IfOperStatusUp"
    int NET_ADMIN_STATUS_UP "NET_IF_ADMIN_STATUS_UP"
    int MEDIA_CONNECTED "MediaConnectStateConnected"
    ctypedef struct MIB_IF_ROW2:
        NET_LUID InterfaceLuid
        ULONG PhysicalAddressLength
        uint8_t PhysicalAddress[32]
        int OperStatus
        int AdminStatus
        int MediaConnectState
        ULONG64 InOctets
        ULONG64 InUcastPkts
        ULONG64 InNUcastPkts
        ULONG64 InDiscards
        ULONG64 InErrors
        ULONG64 OutOctets
        ULONG64 OutUcastPkts
        ULONG64 OutNUcastPkts
        ULONG64 OutDiscards
        ULONG64 OutErrors
    DWORD GetIfEntry2(MIB_IF_ROW2 *row)

    DWORD ConvertInterfaceLuidToIndex(const NET_LUID *luid, ULONG *index)
    DWORD ConvertInterfaceLuidToGuid(const NET_LUID *luid, GUID *guid)
    DWORD ConvertInterfaceLuidToAlias(const NET_LUID *luid, WCHAR *alias, size_t length)
    DWORD ConvertInterfaceAliasToLuid(const WCHAR *alias, NET_LUID *luid)
    void FreeMibTable(void *memory)

    ctypedef int MIB_NOTIFICATION_TYPE
    DWORD NotifyIpInterfaceChange(
        ADDRESS_FAMILY family,
        void (__stdcall *callback)(void *, MIB_IPINTERFACE_ROW *, MIB_NOTIFICATION_TYPE) noexcept nogil,
        void *context, BOOLEAN initial, HANDLE *handle)
    DWORD NotifyUnicastIpAddressChange(
        ADDRESS_FAMILY family,
        void (__stdcall *callback)(void *, MIB_UNICASTIPADDRESS_ROW *, MIB_NOTIFICATION_TYPE) noexcept nogil,
        void *context, BOOLEAN initial, HANDLE *handle)
    DWORD CancelMibChangeNotify2(HANDLE handle)

cdef extern from "<ws2tcpip.h>" nogil:
    DWORD WSAEADDRNOTAVAIL
    const char *inet_ntop(int family, const void *ip, char *text, size_t size)
    int inet_pton(int family, const char *text, void *ip)

cdef extern from "<windows.h>" nogil:
    ctypedef void *HKEY
    HKEY HKEY_LOCAL_MACHINE
    DWORD KEY_QUERY_VALUE
    DWORD KEY_SET_VALUE
    DWORD REG_SZ
    DWORD RRF_RT_REG_SZ
    LONG RegOpenKeyExW(HKEY key, const WCHAR *name, DWORD options, DWORD access, HKEY *result)
    LONG RegGetValueW(
        HKEY key, const WCHAR *name, const WCHAR *value, DWORD flags, DWORD *type, void *data, DWORD *size)
    LONG RegSetValueExW(HKEY key, const WCHAR *value, DWORD reserved, DWORD type, const BYTE *data, DWORD size)
    LONG RegCloseKey(HKEY key)

cdef enum:
    IP_PATIENCE = 5000        # milliseconds for the rows of a new interface
    IPV6_PATIENCE = 1000      # more, for that of IPv6 once that of IPv4 is there
    DAD_PATIENCE = 3000       # until an address can be used
    PEER_METRIC = 9           # of the route to a peer, which tells it from other routes to one host
    NEW_MTU = 1500            # as on other systems; Windows would say 65535
    IPV6_MTU_MIN = 1280
    ALIAS_SIZE = 257          # of UTF-16
    SERVERS_SIZE = 1024       # of UTF-16


# --- names ---

cdef inline int luid_of_name(Handle *handle, const char *name, uint64_t *luid) noexcept nogil:
    cdef WCHAR wide[ALIAS_SIZE]
    cdef NET_LUID found
    handle.failed[PATH_CONTROL] = b"ConvertInterfaceAliasToLuid"
    if not to_wide(name, wide, ALIAS_SIZE) or ConvertInterfaceAliasToLuid(wide, &found) != ERROR_SUCCESS:
        return -ENODEV
    luid[0] = found.Value
    return 0


cdef inline int name_of_luid(Handle *handle, uint64_t luid, char *name) noexcept nogil:
    cdef WCHAR wide[ALIAS_SIZE]
    cdef NET_LUID known
    known.Value = luid
    handle.failed[PATH_CONTROL] = b"ConvertInterfaceLuidToAlias"
    if ConvertInterfaceLuidToAlias(&known, wide, ALIAS_SIZE) != ERROR_SUCCESS or not from_wide(wide, name, NAME_SIZE):
        return -ENODEV
    return 0


cdef inline int guid_of_luid(Handle *handle, uint64_t luid, GUID *guid) noexcept nogil:
    cdef NET_LUID known
    known.Value = luid
    handle.failed[PATH_CONTROL] = b"ConvertInterfaceLuidToGuid"
    return 0 if ConvertInterfaceLuidToGuid(&known, guid) == ERROR_SUCCESS else -ENODEV


cdef inline int index_of_luid(Handle *handle, uint64_t luid, int64_t *index) noexcept nogil:
    cdef NET_LUID known
    cdef ULONG found = 0
    known.Value = luid
    handle.failed[PATH_CONTROL] = b"ConvertInterfaceLuidToIndex"
    if ConvertInterfaceLuidToIndex(&known, &found) != ERROR_SUCCESS:
        return -ENODEV
    index[0] = found
    return 0


cdef inline int set_name(Handle *handle, uint64_t luid, const char *name) noexcept nogil:
    """What the control panel does; Windows documents no function of its own for it."""
    cdef WCHAR wide[ALIAS_SIZE]
    cdef GUID guid
    cdef SetName rename = find_set_name()
    cdef int result = guid_of_luid(handle, luid, &guid)
    if result < 0:
        return result
    handle.failed[PATH_CONTROL] = b"NciSetConnectionName"
    if rename == NULL:
        return -EOPNOTSUPP
    if not to_wide(name, wide, ALIAS_SIZE):
        return -EINVAL
    return win_result(handle, PATH_CONTROL, b"NciSetConnectionName", rename(&guid, wide))


# --- settings ---

cdef inline int get_row(Handle *handle, uint64_t luid, ADDRESS_FAMILY family, MIB_IPINTERFACE_ROW *row) noexcept nogil:
    """ERROR_NOT_FOUND where the interface lacks this family, or there is no such interface."""
    cdef DWORD code
    InitializeIpInterfaceEntry(row)
    row.Family = family
    row.InterfaceLuid.Value = luid
    code = GetIpInterfaceEntry(row)
    if code == ERROR_FILE_NOT_FOUND:
        code = ERROR_NOT_FOUND
    return win_result(handle, PATH_CONTROL, b"GetIpInterfaceEntry", code)


cdef inline int set_row(Handle *handle, MIB_IPINTERFACE_ROW *row) noexcept nogil:
    if row.Family == AF_INET:
        row.SitePrefixLength = 0      # what was read is refused
    return win_result(handle, PATH_CONTROL, b"SetIpInterfaceEntry", SetIpInterfaceEntry(row))


cdef inline int await_row(
    Handle *handle, uint64_t luid, ADDRESS_FAMILY family, MIB_IPINTERFACE_ROW *row, int patience,
) noexcept nogil:
    """The row of a family, as soon as it is there."""
    cdef int waited = 0
    cdef int result = get_row(handle, luid, family, row)
    while is_error(result, ERROR_NOT_FOUND) and waited < patience:
        Sleep(20)
        waited += 20
        result = get_row(handle, luid, family, row)
    return result


cdef inline int of_both(int result4, int result6) noexcept nogil:
    """Of results that are 0 or, of IPv4, ERROR_NOT_FOUND: an interface may lack one family, one that has gone both."""
    if is_error(result6, ERROR_NOT_FOUND):
        return 0 if result4 == 0 else -ENODEV
    return result6


cdef inline int lacking(Handle *handle, uint64_t luid, ADDRESS_FAMILY family) noexcept nogil:
    """The error of an interface that lacks a family: it has gone, or ERROR_NOT_SUPPORTED of GetIpInterfaceEntry."""
    cdef MIB_IPINTERFACE_ROW row
    if get_row(handle, luid, AF_INET if family == AF_INET6 else AF_INET6, &row) < 0:
        return -ENODEV
    return win_result(handle, PATH_CONTROL, b"GetIpInterfaceEntry", ERROR_NOT_SUPPORTED)


cdef inline int prepare_row(
    Handle *handle, uint64_t luid, ADDRESS_FAMILY family, int patience,
) noexcept nogil:
    cdef MIB_IPINTERFACE_ROW row
    cdef int result = await_row(handle, luid, family, &row, patience)
    if result < 0 or not handle.created:
        return result
    row.DadTransmits = 0
    row.NlMtu = NEW_MTU
    return set_row(handle, &row)


cdef inline int prepare_interface(Handle *handle, uint64_t luid) noexcept nogil:
    """Wait until an interface can be configured; a new one gets what it has on other systems."""
    cdef int result = prepare_row(handle, luid, AF_INET, IP_PATIENCE)
    if result < 0 and not is_error(result, ERROR_NOT_FOUND):
        return result
    return of_both(result, prepare_row(handle, luid, AF_INET6, IPV6_PATIENCE if handle.created else 0))


cdef inline int get_entry(Handle *handle, uint64_t luid, MIB_IF_ROW2 *entry) noexcept nogil:
    memset(entry, 0, sizeof(MIB_IF_ROW2))
    entry.InterfaceLuid.Value = luid
    handle.failed[PATH_CONTROL] = b"GetIfEntry2"
    return 0 if GetIfEntry2(entry) == ERROR_SUCCESS else -ENODEV


cdef inline int get_setting(Handle *handle, uint64_t luid, int setting, int64_t *value) noexcept nogil:
    cdef MIB_IPINTERFACE_ROW row
    cdef MIB_IF_ROW2 entry
    cdef int result
    if setting == SETTING_INDEX:
        result = index_of_luid(handle, luid, value)
    elif setting in (SETTING_MTU, SETTING_MTU_V6, SETTING_METRIC):
        result = get_row(handle, luid, AF_INET6 if setting == SETTING_MTU_V6 else AF_INET, &row)
        if setting != SETTING_MTU_V6 and is_error(result, ERROR_NOT_FOUND):
            result = of_both(result, get_row(handle, luid, AF_INET6, &row))
        elif is_error(result, ERROR_NOT_FOUND):
            result = lacking(handle, luid, AF_INET6)
        if result == 0 and setting == SETTING_METRIC:
            value[0] = -1 if row.UseAutomaticMetric else <int64_t> row.Metric
        elif result == 0:
            value[0] = row.NlMtu
    elif setting in (SETTING_UP, SETTING_RUNNING, SETTING_CARRIER):
        result = get_entry(handle, luid, &entry)
        if setting == SETTING_UP:
            value[0] = entry.AdminStatus == NET_ADMIN_STATUS_UP
        elif setting == SETTING_RUNNING:
            value[0] = entry.OperStatus == IF_OPER_STATUS_UP
        else:
            value[0] = entry.MediaConnectState == MEDIA_CONNECTED
    else:
        handle.failed[PATH_CONTROL] = b"this setting"
        result = -EOPNOTSUPP
    return result


cdef inline int change_row(
    Handle *handle, uint64_t luid, ADDRESS_FAMILY family, int setting, int64_t value,
) noexcept nogil:
    cdef MIB_IPINTERFACE_ROW row
    cdef int result = get_row(handle, luid, family, &row)
    if result < 0:
        return result
    if setting == SETTING_METRIC:
        row.UseAutomaticMetric = value < 0
        row.Metric = <ULONG> value if value >= 0 else 0
    else:
        row.NlMtu = <ULONG> value
    return set_row(handle, &row)


cdef inline int set_setting(Handle *handle, uint64_t luid, int setting, int64_t value) noexcept nogil:
    """SETTING_MTU and SETTING_METRIC of both families, of those that there are; IPv6 goes without a smaller MTU."""
    cdef MIB_IPINTERFACE_ROW row
    cdef int result
    if setting == SETTING_MTU_V6:
        result = change_row(handle, luid, AF_INET6, setting, value)
        return lacking(handle, luid, AF_INET6) if is_error(result, ERROR_NOT_FOUND) else result
    result = change_row(handle, luid, AF_INET, setting, value)
    if result < 0 and not is_error(result, ERROR_NOT_FOUND):
        return result
    if setting == SETTING_MTU and value < IPV6_MTU_MIN:
        return of_both(result, get_row(handle, luid, AF_INET6, &row))
    return of_both(result, change_row(handle, luid, AF_INET6, setting, value))


cdef inline int get_mac(Handle *handle, uint64_t luid, uint8_t *mac) noexcept nogil:
    cdef MIB_IF_ROW2 entry
    cdef int result = get_entry(handle, luid, &entry)
    if result == 0 and entry.PhysicalAddressLength != MAC_SIZE:
        return -EOPNOTSUPP
    memcpy(mac, entry.PhysicalAddress, MAC_SIZE)
    return result


cdef inline int get_statistics(Handle *handle, uint64_t luid, uint64_t *values) noexcept nogil:
    cdef MIB_IF_ROW2 entry
    cdef int result = get_entry(handle, luid, &entry)
    values[STATISTIC_RX_PACKETS] = entry.InUcastPkts + entry.InNUcastPkts
    values[STATISTIC_TX_PACKETS] = entry.OutUcastPkts + entry.OutNUcastPkts
    values[STATISTIC_RX_BYTES] = entry.InOctets
    values[STATISTIC_TX_BYTES] = entry.OutOctets
    values[STATISTIC_RX_ERRORS] = entry.InErrors
    values[STATISTIC_TX_ERRORS] = entry.OutErrors
    values[STATISTIC_RX_DROPPED] = entry.InDiscards
    values[STATISTIC_TX_DROPPED] = entry.OutDiscards
    return result


# --- addresses and routes ---

cdef inline void put_ip(SOCKADDR_INET *sockaddr, int family, const uint8_t *ip) noexcept nogil:
    memset(sockaddr, 0, sizeof(SOCKADDR_INET))
    if family == 4:
        sockaddr.si_family = AF_INET
        memcpy(&sockaddr.Ipv4.sin_addr, ip, 4)
    else:
        sockaddr.si_family = AF_INET6
        memcpy(&sockaddr.Ipv6.sin6_addr, ip, 16)


cdef inline const uint8_t *ip_of(const SOCKADDR_INET *sockaddr) noexcept nogil:
    if sockaddr.si_family == AF_INET:
        return <const uint8_t *> &sockaddr.Ipv4.sin_addr
    return <const uint8_t *> &sockaddr.Ipv6.sin6_addr


cdef inline bint is_unspecified(const SOCKADDR_INET *sockaddr) noexcept nogil:
    cdef uint8_t nothing[16]
    memset(nothing, 0, 16)
    return memcmp(ip_of(sockaddr), nothing, 4 if sockaddr.si_family == AF_INET else 16) == 0


cdef inline void put_route(
    MIB_IPFORWARD_ROW2 *row, uint64_t luid, int family, const uint8_t *network, int prefix, const uint8_t *gateway,
    uint32_t metric,
) noexcept nogil:
    """The route to a network, of which `network` is any address; without a gateway it is on the link."""
    cdef uint8_t masked[16]
    cdef uint8_t nothing[16]
    cdef int width = 4 if family == 4 else 16
    cdef int i
    memset(nothing, 0, 16)
    for i in range(width):
        masked[i] = network[i] & <uint8_t> (0xff00 >> max(0, min(8, prefix - 8 * i)))
    InitializeIpForwardEntry(row)
    row.InterfaceLuid.Value = luid
    put_ip(&row.DestinationPrefix.Prefix, family, masked)
    row.DestinationPrefix.PrefixLength = <uint8_t> prefix
    put_ip(&row.NextHop, family, gateway if gateway != NULL else nothing)
    row.Metric = metric
    row.Protocol = MIB_IPPROTO_NETMGMT


cdef inline int add_route(
    Handle *handle, uint64_t luid, int family, const uint8_t *network, int prefix, const uint8_t *gateway,
    uint32_t metric,
) noexcept nogil:
    cdef MIB_IPFORWARD_ROW2 row
    cdef DWORD code
    put_route(&row, luid, family, network, prefix, gateway, metric)
    code = CreateIpForwardEntry2(&row)
    if code == ERROR_NOT_FOUND or code == ERROR_FILE_NOT_FOUND:
        return lacking(handle, luid, AF_INET if family == 4 else AF_INET6)
    return win_result(handle, PATH_CONTROL, b"CreateIpForwardEntry2", code)


cdef inline int remove_route(
    Handle *handle, uint64_t luid, int family, const uint8_t *network, int prefix, const uint8_t *gateway,
) noexcept nogil:
    cdef MIB_IPFORWARD_ROW2 row
    put_route(&row, luid, family, network, prefix, gateway, 0)
    return win_result(handle, PATH_CONTROL, b"DeleteIpForwardEntry2", DeleteIpForwardEntry2(&row))


cdef inline void find_peer(uint64_t luid, Address *address) noexcept nogil:
    """A point-to-point address is a subnet of its own, and beside it a route on the link of PEER_METRIC."""
    cdef MIB_IPFORWARD_TABLE2 *table = NULL
    cdef const MIB_IPFORWARD_ROW2 *row
    cdef ULONG i
    cdef ADDRESS_FAMILY family = AF_INET if address.family == 4 else AF_INET6
    if GetIpForwardTable2(family, &table) != ERROR_SUCCESS:
        return
    for i in range(table.NumEntries):
        row = &table.Table[i]
        if (
            row.InterfaceLuid.Value == luid and row.Protocol == MIB_IPPROTO_NETMGMT and row.Metric == PEER_METRIC
            and row.DestinationPrefix.PrefixLength == address.prefix and is_unspecified(&row.NextHop)
        ):
            memcpy(address.peer, ip_of(&row.DestinationPrefix.Prefix), 4 if address.family == 4 else 16)
            address.has_peer = 1
            break
    FreeMibTable(table)


cdef inline int get_addresses(Handle *handle, uint64_t luid, Address *addresses, int capacity) noexcept nogil:
    cdef MIB_UNICASTIPADDRESS_TABLE *table = NULL
    cdef const MIB_UNICASTIPADDRESS_ROW *row
    cdef Address *address
    cdef int count = 0
    cdef ULONG i
    cdef int result = win_result(
        handle, PATH_CONTROL, b"GetUnicastIpAddressTable", GetUnicastIpAddressTable(AF_UNSPEC, &table))
    if result < 0:
        return 0 if is_error(result, ERROR_NOT_FOUND) else result
    for i in range(table.NumEntries):
        row = &table.Table[i]
        if row.InterfaceLuid.Value != luid or row.Address.si_family not in (AF_INET, AF_INET6):
            continue
        if count < capacity:
            address = &addresses[count]
            memset(address, 0, sizeof(Address))
            address.family = 4 if row.Address.si_family == AF_INET else 6
            memcpy(address.ip, ip_of(&row.Address), 4 if address.family == 4 else 16)
            address.prefix = row.OnLinkPrefixLength
            address.automatic = row.PrefixOrigin == IpPrefixOriginWellKnown
            if address.prefix == (32 if address.family == 4 else 128):
                find_peer(luid, address)
        count += 1
    FreeMibTable(table)
    return count


cdef inline void put_address(MIB_UNICASTIPADDRESS_ROW *row, uint64_t luid, const Address *address) noexcept nogil:
    """Windows routes the subnet whenever the link comes up: an address without routes is a subnet of its own."""
    InitializeUnicastIpAddressEntry(row)
    row.InterfaceLuid.Value = luid
    put_ip(&row.Address, address.family, address.ip)
    row.OnLinkPrefixLength = <uint8_t> address.prefix
    if address.has_peer or address.no_route:
        row.OnLinkPrefixLength = 32 if address.family == 4 else 128


cdef inline int await_address(Handle *handle, MIB_UNICASTIPADDRESS_ROW *row, int *waited) noexcept nogil:
    """Until the address can be used, as nobody else on the link has it; no longer than DAD_PATIENCE altogether."""
    cdef int result
    while True:
        result = win_result(handle, PATH_CONTROL, b"GetUnicastIpAddressEntry", GetUnicastIpAddressEntry(row))
        if result < 0 or row.DadState in (IpDadStatePreferred, IpDadStateDeprecated) or waited[0] >= DAD_PATIENCE:
            return result
        if row.DadState == IpDadStateDuplicate:
            return win_result(handle, PATH_CONTROL, b"duplicate address detection", ERROR_OBJECT_ALREADY_EXISTS)
        Sleep(10)
        waited[0] += 10


cdef inline void await_addresses(Handle *handle, uint64_t luid) noexcept nogil:
    """The same for all of an interface whose link has come up: before, they cannot be used."""
    cdef MIB_UNICASTIPADDRESS_TABLE *table = NULL
    cdef int waited = 0
    cdef ULONG i
    if GetUnicastIpAddressTable(AF_UNSPEC, &table) != ERROR_SUCCESS:
        return
    for i in range(table.NumEntries):
        if table.Table[i].InterfaceLuid.Value == luid:
            await_address(handle, &table.Table[i], &waited)
    FreeMibTable(table)


cdef inline int add_address(Handle *handle, uint64_t luid, const Address *address) noexcept nogil:
    """ERROR_OBJECT_ALREADY_EXISTS also if an interface whose link is down has the address."""
    cdef MIB_IPINTERFACE_ROW interface
    cdef MIB_UNICASTIPADDRESS_ROW row
    cdef const char *failed
    cdef ADDRESS_FAMILY family = AF_INET if address.family == 4 else AF_INET6
    cdef int waited = 0
    cdef int result = await_row(handle, luid, family, &interface, IP_PATIENCE)
    if is_error(result, ERROR_NOT_FOUND):
        return lacking(handle, luid, family)
    if result < 0:
        return result
    put_address(&row, luid, address)
    row.DadState = IpDadStatePreferred
    result = win_result(handle, PATH_CONTROL, b"CreateUnicastIpAddressEntry", CreateUnicastIpAddressEntry(&row))
    if result < 0:
        return result
    if address.has_peer and not address.no_route:
        result = add_route(handle, luid, address.family, address.peer, address.prefix, NULL, PEER_METRIC)
        if is_error(result, ERROR_OBJECT_ALREADY_EXISTS):
            result = 0
    if result == 0 and interface.Connected:
        result = await_address(handle, &row, &waited)
    if result < 0:
        failed = handle.failed[PATH_CONTROL]
        remove_address(handle, luid, address)
        handle.failed[PATH_CONTROL] = failed
    return result


cdef inline int remove_address(Handle *handle, uint64_t luid, const Address *address) noexcept nogil:
    cdef MIB_UNICASTIPADDRESS_ROW row
    cdef DWORD code
    put_address(&row, luid, address)
    code = DeleteUnicastIpAddressEntry(&row)
    if code == ERROR_SUCCESS and address.has_peer:
        remove_route(handle, luid, address.family, address.peer, address.prefix, NULL)
    if code == ERROR_NOT_FOUND:
        code = WSAEADDRNOTAVAIL
    return win_result(handle, PATH_CONTROL, b"DeleteUnicastIpAddressEntry", code)


# --- name servers ---

cdef inline int server_text(const Address *servers, int count, int family, WCHAR *text, int capacity) noexcept nogil:
    """Those of a family, with commas between; UTF-16 units."""
    cdef char one[64]
    cdef int size = 0
    cdef int i
    cdef int j
    text[0] = 0
    for i in range(count):
        if servers[i].family != family:
            continue
        if inet_ntop(AF_INET if family == 4 else AF_INET6, servers[i].ip, one, sizeof(one)) == NULL:
            continue
        if size:
            text[size] = c","
            size += 1
        for j in range(<int> strlen(one)):
            text[size] = one[j]
            size += 1
        text[size] = 0
        if size + <int> sizeof(one) + 2 > capacity:
            break
    return size


cdef inline int parse_server_text(
    const WCHAR *text, int family, Address *servers, int count, int capacity,
) noexcept nogil:
    """How many servers there are with those of a text; commas or spaces are between them."""
    cdef char one[64]
    cdef int size
    cdef int at = 0
    cdef uint8_t ip[16]
    while text[at]:
        size = 0
        while text[at] and text[at] not in (c",", c" ", c";"):
            if size + 1 < <int> sizeof(one):
                one[size] = <char> (text[at] if text[at] < 128 else c"?")
                size += 1
            at += 1
        one[size] = 0
        if size and inet_pton(AF_INET if family == 4 else AF_INET6, one, ip) == 1:
            if count < capacity:
                memset(&servers[count], 0, sizeof(Address))
                servers[count].family = family
                servers[count].prefix = 32 if family == 4 else 128
                memcpy(servers[count].ip, ip, 4 if family == 4 else 16)
            count += 1
        if text[at]:
            at += 1
    return count


cdef inline int get_registered_servers(
    Handle *handle, const GUID *guid, int family, WCHAR *text, DWORD capacity,
) noexcept nogil:
    cdef WCHAR key[KEY_SIZE]
    cdef DWORD size = capacity * <DWORD> sizeof(WCHAR)
    cdef DWORD code
    key_of_interface(key, guid, family == 6)
    text[0] = 0
    code = <DWORD> RegGetValueW(HKEY_LOCAL_MACHINE, key, NAME_SERVER, RRF_RT_REG_SZ, NULL, text, &size)
    if code == ERROR_FILE_NOT_FOUND:
        return 0
    return win_result(handle, PATH_CONTROL, b"RegGetValue(NameServer)", code)


cdef inline int set_registered_servers(
    Handle *handle, const GUID *guid, int family, const WCHAR *text, int size,
) noexcept nogil:
    """Before build 19041 of Windows 10; the resolver looks there when its cache is flushed."""
    cdef WCHAR key[KEY_SIZE]
    cdef HKEY opened
    cdef FlushDns flush = find_flush_dns()
    cdef DWORD code
    key_of_interface(key, guid, family == 6)
    code = <DWORD> RegOpenKeyExW(HKEY_LOCAL_MACHINE, key, 0, KEY_SET_VALUE, &opened)
    if code == ERROR_SUCCESS:
        code = <DWORD> RegSetValueExW(
            opened, NAME_SERVER, 0, REG_SZ, <const BYTE *> text, <DWORD> ((size + 1) * sizeof(WCHAR)))
        RegCloseKey(opened)
    if flush != NULL:
        flush()
    return win_result(handle, PATH_CONTROL, b"RegSetValue(NameServer)", code)


cdef inline int get_dns(Handle *handle, uint64_t luid, Address *servers, int capacity) noexcept nogil:
    cdef WCHAR text[SERVERS_SIZE]
    cdef DnsSettings settings
    cdef GetDns ask = find_get_dns()
    cdef FreeDns let_go = find_free_dns()
    cdef GUID guid
    cdef int count = 0
    cdef int family
    cdef int result = guid_of_luid(handle, luid, &guid)
    if result < 0:
        return result
    for family in range(4, 7, 2):
        if ask != NULL and let_go != NULL:
            memset(&settings, 0, sizeof(DnsSettings))
            settings.Version = 1
            settings.Flags = TUNTAP_DNS_IPV6 if family == 6 else 0
            result = win_result(handle, PATH_CONTROL, b"GetInterfaceDnsSettings", ask(guid, &settings))
            if result == 0 and settings.NameServer != NULL:
                count = parse_server_text(settings.NameServer, family, servers, count, capacity)
            if result == 0:
                let_go(&settings)
        else:
            result = get_registered_servers(handle, &guid, family, text, SERVERS_SIZE)
            if result == 0:
                count = parse_server_text(text, family, servers, count, capacity)
        if result < 0 and not (family == 6 and (
            is_error(result, ERROR_NOT_FOUND) or is_error(result, ERROR_FILE_NOT_FOUND)
        )):
            return result             # IPv6 may be switched off
    return count


cdef inline int set_dns(Handle *handle, uint64_t luid, const Address *servers, int count) noexcept nogil:
    """The servers of both families, of which one may be none."""
    cdef WCHAR text[SERVERS_SIZE]
    cdef DnsSettings settings
    cdef SetDns put = find_set_dns()
    cdef GUID guid
    cdef int family
    cdef int size
    cdef int result = guid_of_luid(handle, luid, &guid)
    if result < 0:
        return result
    for family in range(4, 7, 2):
        size = server_text(servers, count, family, text, SERVERS_SIZE)
        if put != NULL:
            memset(&settings, 0, sizeof(DnsSettings))
            settings.Version = 1
            settings.Flags = TUNTAP_DNS_NAMESERVER | (TUNTAP_DNS_IPV6 if family == 6 else 0)
            settings.NameServer = text
            result = win_result(handle, PATH_CONTROL, b"SetInterfaceDnsSettings", put(guid, &settings))
        else:
            result = set_registered_servers(handle, &guid, family, text, size)
        if result < 0 and not (family == 6 and size == 0):
            return result
    return 0


# --- notifications ---

# What a Watch keeps.  Which of the many things it was does not matter: whoever is told looks at the interface.
cdef struct InterfaceWatch:
    uint64_t luid
    LONG has_changed
    HANDLE event
    HANDLE interface_notice
    HANDLE address_notice


cdef inline void note_change(InterfaceWatch *state, uint64_t luid) noexcept nogil:
    if luid == state.luid:
        InterlockedExchange(&state.has_changed, 1)
        SetEvent(state.event)


cdef inline void __stdcall interface_changed(
    void *context, MIB_IPINTERFACE_ROW *row, MIB_NOTIFICATION_TYPE kind,
) noexcept nogil:
    if row != NULL:
        note_change(<InterfaceWatch *> context, row.InterfaceLuid.Value)


cdef inline void __stdcall address_changed(
    void *context, MIB_UNICASTIPADDRESS_ROW *row, MIB_NOTIFICATION_TYPE kind,
) noexcept nogil:
    if row != NULL:
        note_change(<InterfaceWatch *> context, row.InterfaceLuid.Value)


cdef inline void unwatch(Watch *watch) noexcept nogil:
    cdef InterfaceWatch *state = <InterfaceWatch *> watch.state
    watch.state = NULL
    watch.io = -1
    if state == NULL:
        return
    # This waits for a callback that runs.
    if state.interface_notice != NULL:
        CancelMibChangeNotify2(state.interface_notice)
    if state.address_notice != NULL:
        CancelMibChangeNotify2(state.address_notice)
    if state.event != NULL:
        CloseHandle(state.event)
    free(state)


cdef inline int watch_interface(Handle *handle, uint64_t luid, Watch *watch) noexcept nogil:
    cdef InterfaceWatch *state = <InterfaceWatch *> calloc(1, sizeof(InterfaceWatch))
    cdef int result = 0
    watch.io = -1
    watch.state = state
    if state == NULL:
        handle.failed[PATH_CONTROL] = b"calloc"
        return -ENOMEM
    state.luid = luid
    state.event = CreateEventW(NULL, True, False, NULL)
    if state.event == NULL:
        result = win_fail(handle, PATH_CONTROL, b"CreateEvent")
    if result == 0:
        result = win_result(
            handle, PATH_CONTROL, b"NotifyIpInterfaceChange",
            NotifyIpInterfaceChange(AF_UNSPEC, interface_changed, state, False, &state.interface_notice))
    if result == 0:
        result = win_result(
            handle, PATH_CONTROL, b"NotifyUnicastIpAddressChange",
            NotifyUnicastIpAddressChange(AF_UNSPEC, address_changed, state, False, &state.address_notice))
    if result < 0:
        unwatch(watch)
        return result
    watch.io = <intptr_t> state.event
    return 0


cdef inline int watch_next(Watch *watch, Change *change) noexcept nogil:
    cdef InterfaceWatch *state = <InterfaceWatch *> watch.state
    ResetEvent(state.event)           # first: what comes from now on sets it again
    return CHANGE_LOST if InterlockedExchange(&state.has_changed, 0) else CHANGE_NONE
