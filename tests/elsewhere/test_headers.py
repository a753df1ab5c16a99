"""What layouts.py and the kernels derive by hand is what the compiler of each system makes of its headers."""

import crossbuild
import fake_macos
import layouts
import pytest
from fake_bsd import FreeBSD, NetBSD, OpenBSD
from fake_macos import MacOS

COMMON = [
    "sys/types.h", "sys/socket.h", "sys/ioctl.h", "sys/sockio.h", "net/if.h", "net/if_dl.h", "net/if_tun.h",
    "net/if_types.h", "net/route.h", "netinet/in.h", "netinet/in_var.h", "netinet6/in6_var.h", "ifaddrs.h",
]  # fmt: skip
SYSTEMS = {
    "freebsd": (FreeBSD, [*COMMON, "net/if_tap.h", "netinet6/nd6.h"]),
    "openbsd": (OpenBSD, COMMON),
    "netbsd": (NetBSD, [*COMMON, "net/if_tap.h", "netinet6/nd6.h"]),
}


MACOS = [
    "sys/types.h", "sys/socket.h", "sys/ioctl.h", "sys/sockio.h", "sys/kern_control.h", "sys/sysctl.h",
    "net/bpf.h", "net/if.h", "net/if_dl.h", "net/if_types.h", "net/if_utun.h", "net/ndrv.h", "net/route.h",
    "netinet/in.h",
    "ifaddrs.h",
]  # fmt: skip


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture
def ask(system, elsewhere, tmp_path):
    """What expressions are there."""
    return lambda names: crossbuild.values(system, SYSTEMS[system][1], names, tmp_path)


def test_requests(system, ask):
    table = {name: number for number, name in SYSTEMS[system][0].REQUESTS.items()}
    assert ask(sorted(table)) == table


def test_families_and_flags(system, ask):
    kernel = SYSTEMS[system][0]
    expected = {
        "AF_INET": 2, "AF_INET6": kernel.AF_INET6, "AF_LINK": kernel.AF_LINK, "IFF_UP": 1, "IFF_BROADCAST": 2,
        "IFF_POINTOPOINT": 0x10, "IFF_RUNNING": 0x40, "IFF_SIMPLEX": 0x800, "IFF_MULTICAST": 0x8000,
        "IFNAMSIZ": layouts.IFNAMSIZ, "IFT_ETHER": 6,
    }  # fmt: skip
    assert ask(list(expected)) == expected


def test_structures(system, ask):
    kernel = SYSTEMS[system][0]
    tail = b"\0\0\0\0" if system == "freebsd" else b""
    alias = layouts.ifaliasreq("x", "10.0.0.1", None, "255.0.0.0", tail)
    alias6 = layouts.in6_aliasreq("x", kernel.AF_INET6, "fd00::1", None, 64, 0, 0, 2 * tail)
    expected = {
        "sizeof(struct ifreq)": len(layouts.ifreq("x", size=kernel.IFREQ)),
        "sizeof(struct ifaliasreq)": len(alias),
        "sizeof(struct in6_aliasreq)": len(alias6),
        "sizeof(struct sockaddr_in)": len(layouts.sockaddr_in("10.0.0.1")),
        "sizeof(struct sockaddr_in6)": len(layouts.sockaddr_in6("fd00::1", kernel.AF_INET6)),
        "sizeof(struct sockaddr_dl)": {"freebsd": 54, "openbsd": 32, "netbsd": 32}[system],
        "sizeof(struct if_data)": kernel.COUNTERS.size,
        "sizeof(struct ifaddrs)": 64 if system == "netbsd" else 56,
        "sizeof(struct in6_ifreq)": 288,
        "offsetof(struct ifreq, ifr_addr)": 16,
        "offsetof(struct ifreq, ifr_flags)": 16,
        "offsetof(struct ifreq, ifr_mtu)": 16,
        "offsetof(struct ifaliasreq, ifra_addr)": 16,
        "offsetof(struct ifaliasreq, ifra_broadaddr)": 32,
        "offsetof(struct ifaliasreq, ifra_mask)": 48,
        "offsetof(struct in6_aliasreq, ifra_addr)": 16,
        "offsetof(struct in6_aliasreq, ifra_dstaddr)": 44,
        "offsetof(struct in6_aliasreq, ifra_prefixmask)": 72,
        "offsetof(struct in6_aliasreq, ifra_flags)": 100,
        "offsetof(struct in6_aliasreq, ifra_lifetime.ia6t_vltime)": 120,
        "offsetof(struct in6_aliasreq, ifra_lifetime.ia6t_pltime)": 124,
        "offsetof(struct sockaddr_in, sin_addr)": 4,
        "offsetof(struct sockaddr_in6, sin6_addr)": 8,
        "offsetof(struct sockaddr_in6, sin6_scope_id)": 24,
        "offsetof(struct sockaddr_dl, sdl_index)": 2,
        "offsetof(struct sockaddr_dl, sdl_type)": 4,
        "offsetof(struct sockaddr_dl, sdl_data)": 8,
    }
    if system != "openbsd":
        expected["offsetof(struct in6_ndireq, ndi.flags)"] = kernel.ND6_FLAGS
    assert ask(list(expected)) == expected


def test_messages_of_the_routing_socket(system, ask):
    layout = SYSTEMS[system][0].ROUTE
    expected = {f"offsetof(struct rt_msghdr, rtm_{name})": layout.offset(name) for name in layout.names}
    expected |= {
        "sizeof(struct rt_msghdr)": layout.size, "RTM_VERSION": SYSTEMS[system][0].ROUTE_VERSION,
        "RTM_ADD": layouts.RTM_ADD, "RTM_DELETE": layouts.RTM_DELETE, "RTM_GET": layouts.RTM_GET,
        "RTA_DST": layouts.RTA_DST, "RTA_GATEWAY": layouts.RTA_GATEWAY, "RTA_NETMASK": layouts.RTA_NETMASK,
        "RTF_UP": layouts.RTF_UP, "RTF_HOST": layouts.RTF_HOST, "RTF_STATIC": layouts.RTF_STATIC,
        "RTF_GATEWAY": layouts.RTF_GATEWAY,
    }  # fmt: skip
    if system == "freebsd":
        expected["RTF_PINNED"] = layouts.RTF_PINNED
    if SYSTEMS[system][0].SO_RERROR:
        expected["SO_RERROR"] = SYSTEMS[system][0].SO_RERROR
    assert ask(list(expected)) == expected


def test_notifications(system, ask):
    kernel = SYSTEMS[system][0]
    expected = {
        "offsetof(struct if_msghdr, ifm_data)": kernel.LINK.size,
        "sizeof(struct ifa_msghdr)": kernel.ADDRESS.size,
        "sizeof(struct if_announcemsghdr)": kernel.ANNOUNCEMENT.size, "RTA_BRD": layouts.RTA_BRD,
        "RTA_IFP": layouts.RTA_IFP, "RTA_IFA": layouts.RTA_IFA, "RTM_IFINFO": kernel.RTM_IFINFO,
        "RTM_NEWADDR": kernel.RTM_NEWADDR, "RTM_DELADDR": kernel.RTM_DELADDR,
        "RTM_IFANNOUNCE": kernel.RTM_IFANNOUNCE, "IFAN_ARRIVAL": 0, "IFAN_DEPARTURE": 1,
    }  # fmt: skip
    for layout, name, prefix in (
        (kernel.LINK, "if_msghdr", "ifm"),
        (kernel.ADDRESS, "ifa_msghdr", "ifam"),
        (kernel.ANNOUNCEMENT, "if_announcemsghdr", "ifan"),
    ):
        for field in layout.names:
            expected[f"offsetof(struct {name}, {prefix}_{field})"] = layout.offset(field)
    assert ask(list(expected)) == expected


def test_counters(system, ask):
    layout = SYSTEMS[system][0].COUNTERS
    names = [name for name in layout.names if name != "epoch"]  # a macro there, into a union
    expected = {f"offsetof(struct if_data, ifi_{name})": layout.offset(name) for name in names}
    assert ask(list(expected)) == expected


class TestMacOS:
    """Of which not every header is at hand: netinet6/in6_var.h and sys/sys_domain.h are missing."""

    @pytest.fixture
    def ask(self, elsewhere, tmp_path):
        return lambda names: crossbuild.values("macos", MACOS, names, tmp_path)

    def test_requests(self, ask):
        table = {name: number for number, name in MacOS.REQUESTS.items()}
        missing = {"SIOCAIFADDR_IN6", "SIOCDIFADDR_IN6"}
        known = [name for name in sorted(table) if name not in missing]
        assert ask(known) == {name: table[name] for name in known}

    def test_numbers(self, ask):
        expected = {
            "AF_INET": 2, "AF_INET6": 30, "AF_LINK": 18, "AF_SYSTEM": fake_macos.AF_SYSTEM, "PF_ROUTE": 17,
            "UTUN_OPT_IFNAME": fake_macos.UTUN_OPT_IFNAME, "SOL_SOCKET": fake_macos.SOL_SOCKET,
            "UTUN_OPT_MAX_PENDING_PACKETS": fake_macos.UTUN_OPT_MAX_PENDING_PACKETS,
            "SO_SNDBUF": fake_macos.SO_SNDBUF, "SO_RCVBUF": fake_macos.SO_RCVBUF,
            "SO_TYPE": fake_macos.SO_TYPE,
            "NET_RT_IFLIST2": fake_macos.NET_RT_IFLIST2, "CTL_NET": fake_macos.CTL_NET,
            "RTM_IFINFO2": fake_macos.RTM_IFINFO2, "RTM_VERSION": MacOS.ROUTE_VERSION,
            "sizeof(struct sockaddr_ctl)": fake_macos.CONTROL.size, "sizeof(struct ctl_info)": 100,
            "sizeof(struct sockaddr_dl)": 20, "sizeof(struct ifreq)": 32, "sizeof(struct ifaliasreq)": 64,
            "sizeof(struct rt_msghdr)": MacOS.ROUTE.size, "sizeof(struct if_data)": MacOS.COUNTERS.size,
            "sizeof(struct if_data64)": MacOS.COUNTERS64.size, "offsetof(struct if_msghdr2, ifm_data)": 32,
            "sizeof(struct ifaddrs)": 56, "offsetof(struct sockaddr_ctl, sc_id)": 4,
            "offsetof(struct sockaddr_ctl, sc_unit)": 8, "offsetof(struct sockaddr_ctl, ss_sysaddr)": 2,
        }  # fmt: skip
        assert ask(list(expected)) == expected

    def test_a_pair_of_ethernet_interfaces(self, ask):
        """struct msghdr_x and struct if_fake_request are in no header that Apple hands out."""
        expected = {
            "AF_NDRV": fake_macos.AF_NDRV, "SOCK_RAW": fake_macos.SOCK_RAW, "BPF_ALIGNMENT": 4,
            "sizeof(struct sockaddr_ndrv)": len(layouts.sockaddr_ndrv("feth0")),
            "offsetof(struct sockaddr_ndrv, snd_name)": 2,
            "sizeof(struct ifdrv)": len(layouts.ifdrv("feth0", 1, 160)) + 8,
            "offsetof(struct ifdrv, ifd_cmd)": 16, "offsetof(struct ifdrv, ifd_len)": 24,
            "offsetof(struct ifdrv, ifd_data)": 32, "sizeof(((struct bpf_hdr *) 0)->bh_tstamp)": 8,
            "offsetof(struct bpf_hdr, bh_caplen)": 8, "offsetof(struct bpf_hdr, bh_datalen)": 12,
            "offsetof(struct bpf_hdr, bh_hdrlen)": 16,
            "offsetof(struct msghdr, msg_flags)": 44,
        }  # fmt: skip
        assert ask(list(expected)) == expected

    @pytest.mark.parametrize(
        ("struct", "prefix", "layout"),
        [("rt_msghdr", "rtm_", MacOS.ROUTE), ("if_data64", "ifi_", MacOS.COUNTERS64)],
    )
    def test_fields(self, ask, struct, prefix, layout):
        expected = {
            f"offsetof(struct {struct}, {prefix}{name})": layout.offset(name) for name in layout.names
        }
        assert ask(list(expected)) == expected
