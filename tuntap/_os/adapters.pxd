"""Network adapters of Windows as devices: which of them are TUN and TAP, by SetupAPI (inline)."""
from libc.errno cimport ENODEV
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tuntap._os.iphelper cimport NET_LUID, name_of_luid
from tuntap._os.native cimport Handle, LAYER_TAP, LAYER_TUN, LAYER_UNKNOWN, NAME_SIZE, PATH_CONTROL
from tuntap._os.win32 cimport *

cdef extern from *:
    """
    #include <setupapi.h>
    #include <initguid.h>
    #include <devguid.h>
    #include <iphlpapi.h>
    #include <netioapi.h>

    #define TUNTAP_ID_SIZE 64

    /* Whether one of the strings, each with its NUL, is a hardware id of tap-windows6 or of Wintun: the layer, or 0. */
    static int tuntap_layer_of_ids(const WCHAR *ids) {
        for (; *ids; ids += wcslen(ids) + 1) {
            if (_wcsicmp(ids, L"tap0901") == 0 || _wcsicmp(ids, L"root\\\\tap0901") == 0) return 2;
            if (_wcsicmp(ids, L"wintun") == 0) return 3;
        }
        return 0;
    }

    /* What the driver's key of a device calls the interface, "{...}". */
    static int tuntap_interface_id(HDEVINFO set, SP_DEVINFO_DATA *device, WCHAR *id) {
        DWORD size = (TUNTAP_ID_SIZE - 1) * sizeof(WCHAR), type = 0;
        LONG code;
        HKEY key = SetupDiOpenDevRegKey(set, device, DICS_FLAG_GLOBAL, 0, DIREG_DRV, KEY_QUERY_VALUE);
        if (key == (HKEY) INVALID_HANDLE_VALUE) return 0;
        memset(id, 0, TUNTAP_ID_SIZE * sizeof(WCHAR));
        code = RegQueryValueExW(key, L"NetCfgInstanceId", NULL, &type, (BYTE *) id, &size);
        RegCloseKey(key);
        return code == ERROR_SUCCESS && type == REG_SZ;
    }

    static int tuntap_luid_of_id(const WCHAR *id, ULONG64 *luid) {
        GUID guid;
        NET_LUID found;
        if (CLSIDFromString(id, &guid) != S_OK || ConvertInterfaceGuidToLuid(&guid, &found) != NO_ERROR) return 0;
        *luid = found.Value;
        return 1;
    }
    """
    enum:
        ID_SIZE "TUNTAP_ID_SIZE"      # of UTF-16: "{...}"
    ctypedef void *HDEVINFO
    ctypedef struct SP_DEVINFO_DATA:
        DWORD cbSize
    int layer_of_ids "tuntap_layer_of_ids"(const WCHAR *ids) nogil
    bint interface_id "tuntap_interface_id"(HDEVINFO set, SP_DEVINFO_DATA *device, WCHAR *id) nogil
    bint luid_of_id "tuntap_luid_of_id"(const WCHAR *id, uint64_t *luid) nogil
    const GUID GUID_DEVCLASS_NET
    DWORD DIGCF_PRESENT
    DWORD SPDRP_HARDWAREID
    DWORD ERROR_NO_COMPAT_DRIVERS
    HDEVINFO SetupDiGetClassDevsW(const GUID *kind, const WCHAR *enumerator, void *window, DWORD flags) nogil
    BOOL SetupDiEnumDeviceInfo(HDEVINFO set, DWORD index, SP_DEVINFO_DATA *device) nogil
    BOOL SetupDiGetDeviceRegistryPropertyW(
        HDEVINFO set, SP_DEVINFO_DATA *device, DWORD property, DWORD *type, BYTE *data, DWORD size, DWORD *needed) nogil
    BOOL SetupDiDestroyDeviceInfoList(HDEVINFO set) nogil

cdef enum:
    IDS_SIZE = 1024           # of UTF-16: all hardware ids of a device

# A TUN or TAP that is there.
cdef struct Adapter:
    int layer
    uint64_t luid
    WCHAR id[ID_SIZE]

# A walk over them.
cdef struct Adapters:
    HDEVINFO set
    DWORD next
    SP_DEVINFO_DATA device    # of the adapter found last


cdef inline int adapters_begin(Handle *handle, Adapters *adapters) noexcept nogil:
    adapters.next = 0
    adapters.set = SetupDiGetClassDevsW(&GUID_DEVCLASS_NET, NULL, NULL, DIGCF_PRESENT)
    if adapters.set == INVALID_HANDLE_VALUE:
        return win_fail(handle, PATH_CONTROL, b"SetupDiGetClassDevs")
    return 0


cdef inline bint adapters_next(Adapters *adapters, Adapter *adapter) noexcept nogil:
    """The next one; False after the last."""
    cdef WCHAR ids[IDS_SIZE]
    while True:
        memset(&adapters.device, 0, sizeof(SP_DEVINFO_DATA))
        adapters.device.cbSize = sizeof(SP_DEVINFO_DATA)
        if not SetupDiEnumDeviceInfo(adapters.set, adapters.next, &adapters.device):
            return False
        adapters.next += 1
        memset(ids, 0, sizeof(ids))
        if not SetupDiGetDeviceRegistryPropertyW(
            adapters.set, &adapters.device, SPDRP_HARDWAREID, NULL, <BYTE *> ids,
            <DWORD> (sizeof(ids) - 2 * sizeof(WCHAR)), NULL,
        ):
            continue
        adapter.layer = layer_of_ids(ids)
        if (
            adapter.layer and interface_id(adapters.set, &adapters.device, adapter.id)
            and luid_of_id(adapter.id, &adapter.luid)
        ):
            return True


cdef inline void adapters_end(Adapters *adapters) noexcept nogil:
    SetupDiDestroyDeviceInfoList(adapters.set)


cdef inline int list_interfaces(Handle *handle, char *names, int capacity) noexcept nogil:
    """How many TUN and TAP there are, and their names."""
    cdef Adapters adapters
    cdef Adapter adapter
    cdef char name[NAME_SIZE]
    cdef int count = 0
    cdef int result = adapters_begin(handle, &adapters)
    if result < 0:
        return result
    while adapters_next(&adapters, &adapter):
        if name_of_luid(handle, adapter.luid, name) == 0:
            if count < capacity:
                memcpy(names + count * NAME_SIZE, name, NAME_SIZE)
            count += 1
    adapters_end(&adapters)
    return count


cdef inline int layer_of_luid(Handle *handle, uint64_t luid) noexcept nogil:
    """What an interface is; -ENODEV if it is neither."""
    cdef Adapters adapters
    cdef Adapter adapter
    cdef int layer = LAYER_UNKNOWN
    cdef int result = adapters_begin(handle, &adapters)
    if result < 0:
        return result
    while layer == LAYER_UNKNOWN and adapters_next(&adapters, &adapter):
        if adapter.luid == luid:
            layer = adapter.layer
    adapters_end(&adapters)
    handle.failed[PATH_CONTROL] = b"SetupDiEnumDeviceInfo"
    return layer if layer != LAYER_UNKNOWN else -ENODEV
