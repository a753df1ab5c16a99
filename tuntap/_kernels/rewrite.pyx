from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from tuntap._kernels.checksum cimport fold, sum_bytes
from tuntap._kernels.columns cimport *
from tuntap._kernels.cursor cimport load16, load32, store16, store48
from tuntap._kernels.ip cimport *

# The IPv4 header and what is behind it; `at` is NULL where there is no checksum, or none that is known.
cdef struct Checksum:
    uint8_t *at
    size_t end                    # of the bytes it is over, from the start of the packet
    bint is_over_addresses
    bint is_unfinished            # the sum of the pseudo-header, to which a device adds the rest
    uint64_t change               # of the sum


cdef void find_checksum(uint8_t *data, const Row *row, size_t unfinished, Checksum *checksum) noexcept nogil:
    """That of the header behind the IP header, in as much of the packet as there is."""
    cdef uint8_t *header = data + row.transport_offset
    memset(checksum, 0, sizeof(Checksum))
    checksum.end = <size_t> row.payload_offset + row.payload_length
    checksum.is_over_addresses = row.protocol != PROTOCOL_ICMP
    if not row.marks & MARK_TRANSPORT:
        return
    if row.protocol == PROTOCOL_TCP:
        checksum.at = header + TCP_CHECKSUM
    elif row.protocol == PROTOCOL_UDP:
        checksum.at = header + UDP_CHECKSUM
    elif row.protocol == PROTOCOL_UDPLITE:
        checksum.at = header + UDP_CHECKSUM
        if load16(header + 4) != 0:                  # bytes that it is over
            checksum.end = row.transport_offset + <size_t> load16(header + 4)
    elif row.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
        checksum.at = header + ICMP_CHECKSUM
    checksum.is_unfinished = unfinished != 0 and checksum.at == data + unfinished


cdef inline bint needs_checksum(const Row *row) noexcept nogil:
    """Whether there is a checksum behind the IP header, or may be behind extensions that are not whole."""
    if row.version == 6 and is_extension(row.protocol):
        return True
    return row.protocol in (
        PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_UDPLITE, PROTOCOL_SCTP, PROTOCOL_DCCP,
        PROTOCOL_ICMP if row.version == 4 else PROTOCOL_ICMPV6)


cdef bint goes_on(const uint8_t *data, const Row *row) noexcept nogil:
    """Whether a routing header names a destination beyond that of the IP header (RFC 8200, section 8.1)."""
    cdef const uint8_t *header = data + row.network_offset
    cdef uint8_t protocol = header[6]
    cdef size_t size
    if row.version == 4 or not row.marks & MARK_OPTIONS:
        return False
    header += IPV6_HEADER_SIZE
    while header < data + row.transport_offset:      # all of these were whole
        if protocol == PROTOCOL_ROUTING and header[3] != 0:
            return True
        size = extension_size(protocol, header)
        protocol = header[0]
        header += size
    return False


cdef inline void store_checksum(Checksum *checksum, uint16_t value, const Row *row) noexcept nogil:
    """In UDP 0 says that there is none (RFC 768), in UDP-Lite not even that (RFC 3828)."""
    if value == 0 and row.protocol in (PROTOCOL_UDP, PROTOCOL_UDPLITE):
        value = 0xffff
    store16(checksum.at, value)


cdef inline uint16_t made_anew(const uint8_t *at, const uint8_t *data, size_t size, uint64_t initial) noexcept nogil:
    """The checksum over bytes, not all zero, of which those at `at` count as 0.

    To write a 0 and read it together with its neighbours makes a CPU wait.
    """
    return <uint16_t> ~fold(sum_bytes(data, size, initial) + <uint16_t> ~load16(at))


cdef bint fix_checksums(uint8_t *data, size_t size, bint is_frame, size_t unfinished) noexcept nogil:
    cdef Row row
    cdef Checksum checksum
    cdef uint8_t *network
    cdef uint8_t *header
    cdef uint64_t total = 0
    rows_clear(&row, 1)
    row_read(data, size, is_frame, WANT_TRANSPORT, 0, &row)
    if not row.marks & MARK_IP:
        return False
    network = data + row.network_offset
    header = data + row.transport_offset
    if row.version == 4:
        store16(network + IPV4_CHECKSUM, made_anew(network + IPV4_CHECKSUM, network, header - network, 0))
    if row.marks & MARK_FRAGMENT:
        return False
    find_checksum(data, &row, unfinished, &checksum)
    if checksum.at == NULL or row.marks & MARK_TRUNCATED or goes_on(data, &row):
        return not needs_checksum(&row)
    size = checksum.end - row.transport_offset
    if checksum.is_over_addresses:
        total = <uint64_t> row.payload_offset + row.payload_length - row.transport_offset + row.protocol
        if row.version == 4:
            total += (row.src4 >> 16) + (row.src4 & 0xffff) + (row.dst4 >> 16) + (row.dst4 & 0xffff)
        else:
            total = sum_bytes(network + 8, 32, total)
    if checksum.is_unfinished:
        store16(checksum.at, fold(total))
    elif checksum.is_over_addresses:
        store_checksum(&checksum, made_anew(checksum.at, header, size, total), &row)
    else:
        total = sum_bytes(header + ICMP_CHECKSUM + 2, size - ICMP_CHECKSUM - 2, load16(header))
        store16(checksum.at, <uint16_t> ~fold(total))
    return True


# --- changes, which the checksums follow (RFC 1624, equation 3) ---

cdef inline void change(uint8_t *at, uint16_t value, uint64_t *sum) noexcept nogil:
    """Write a word; `sum` is of the changes."""
    sum[0] += <uint64_t> <uint16_t> ~load16(at) + value
    store16(at, value)


cdef inline void change_32(uint8_t *at, uint32_t value, uint64_t *sum) noexcept nogil:
    change(at, <uint16_t> (value >> 16), sum)
    change(at + 2, <uint16_t> value, sum)


cdef inline void change_address(uint8_t *at, const uint8_t *value, uint64_t *sum) noexcept nogil:
    cdef int i
    for i in range(0, 16, 2):
        change(at + i, load16(value + i), sum)


cdef inline uint16_t followed(const uint8_t *at, uint64_t sum) noexcept nogil:
    return <uint16_t> ~fold(<uint64_t> <uint16_t> ~load16(at) + fold(sum))


cdef inline bint is_known(uint32_t set, const Row *was, const Checksum *checksum) noexcept nogil:
    """Whether what follows from a change of these fields is known."""
    cdef uint32_t addresses = SET_SRC4 | SET_DST4 if was.version == 4 else SET_SRC6 | SET_DST6
    if checksum.at != NULL or was.fragment_offset or not needs_checksum(was):
        return True
    # That of SCTP is over no addresses.  Its ports are in it, as those of DCCP are.
    if was.protocol == PROTOCOL_SCTP and was.marks & MARK_TRANSPORT:
        return not set & SET_PORTS
    return not set & (addresses | SET_PORTS)


cdef inline void follow(Checksum *checksum, const Row *was) noexcept nogil:
    """The checksum of a packet after its header was changed."""
    cdef uint16_t value = load16(checksum.at)
    if checksum.is_unfinished:
        store16(checksum.at, fold(value + fold(checksum.change)))
        return
    if value == 0 and was.protocol in (PROTOCOL_UDP, PROTOCOL_UDPLITE):
        return                    # there is none
    value = followed(checksum.at, checksum.change)
    # Only of ICMP can all be zeros, of which the checksum is 0xffff; that is right then for any payload.
    if value == 0 and was.protocol == PROTOCOL_ICMP and load16(checksum.at - 2) == 0 and load32(checksum.at + 2) == 0:
        value = 0xffff
    store_checksum(checksum, value, was)


cdef bint row_update(
    uint8_t *data, size_t size, bint is_frame, size_t unfinished, uint32_t set, const Row *row,
) noexcept nogil:
    cdef Row was
    cdef Checksum checksum
    cdef uint8_t *network
    cdef uint64_t header = 0          # changes of the IPv4 header
    cdef uint64_t ignored = 0
    rows_clear(&was, 1)
    row_read(data, size, is_frame, WANT_TRANSPORT, 0, &was)
    if was.marks & MARK_IP:
        find_checksum(data, &was, unfinished, &checksum)
        if not is_known(set, &was, &checksum):
            return False
    if is_frame and set & SET_LINK:
        update_link(data, size, set, &was, row)
    if not was.marks & MARK_IP:
        return True
    network = data + was.network_offset
    if was.version == 4:
        if set & (SET_DSCP | SET_ECN):
            change(network, <uint16_t> (network[0] << 8 | traffic_class(set, &was, row)), &header)
        if set & SET_IP_ID:
            change(network + 4, <uint16_t> row.ip_id, &header)
        if set & SET_TTL:
            change(network + 8, <uint16_t> (row.ttl << 8 | was.protocol), &header)
        if set & SET_SRC4:
            change_32(network + 12, row.src4, &checksum.change)
        if set & SET_DST4:
            change_32(network + 16, row.dst4, &checksum.change)
        header += fold(checksum.change)
        store16(network + IPV4_CHECKSUM, followed(network + IPV4_CHECKSUM, header))
    else:
        if set & (SET_DSCP | SET_ECN | SET_FLOW_LABEL):
            change_32(
                network, <uint32_t> 6 << 28 | <uint32_t> traffic_class(set, &was, row) << 20
                | (row.flow_label & 0xfffff if set & SET_FLOW_LABEL else was.flow_label), &ignored)
        if set & SET_TTL:
            network[7] = row.ttl
        if set & SET_SRC6:
            change_address(network + 8, row.src6, &checksum.change)
        if set & SET_DST6:
            change_address(network + 24, row.dst6, &ignored if goes_on(data, &was) else &checksum.change)
    if checksum.at != NULL:
        if not checksum.is_over_addresses:
            checksum.change = 0
        update_transport(
            data + was.transport_offset, set, &was, row, &ignored if checksum.is_unfinished else &checksum.change)
        follow(&checksum, &was)
    return True


cdef inline uint8_t traffic_class(uint32_t set, const Row *was, const Row *row) noexcept nogil:
    return <uint8_t> (
        (row.dscp if set & SET_DSCP else was.dscp) << 2 | ((row.ecn if set & SET_ECN else was.ecn) & 3))


cdef inline void update_link(uint8_t *data, size_t size, uint32_t set, const Row *was, const Row *row) noexcept nogil:
    cdef uint16_t tag
    if size < ETHERNET_HEADER_SIZE:
        return
    if set & SET_ETH_DST:
        store48(data, row.eth_dst)
    if set & SET_ETH_SRC:
        store48(data + 6, row.eth_src)
    if was.marks & MARK_VLAN:
        tag = load16(data + 14)
        if set & SET_VLAN:
            tag = tag & 0xf000 | row.vlan & 0xfff
        if set & SET_VLAN_PRIORITY:
            tag = <uint16_t> (tag & 0x1fff | row.vlan_priority << 13)
        store16(data + 14, tag)


cdef inline void update_transport(
    uint8_t *header, uint32_t set, const Row *was, const Row *row, uint64_t *sum,
) noexcept nogil:
    if was.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
        if is_echo(was) and set & SET_ICMP_ID:
            change(header + 4, row.icmp_id, sum)
        if is_echo(was) and set & SET_ICMP_SEQ:
            change(header + 6, row.icmp_seq, sum)
        return
    if set & SET_SRC_PORT:
        change(header, row.src_port, sum)
    if set & SET_DST_PORT:
        change(header + 2, row.dst_port, sum)
    if was.protocol == PROTOCOL_TCP:
        if set & SET_TCP_SEQ:
            change_32(header + 4, row.tcp_seq, sum)
        if set & SET_TCP_ACK:
            change_32(header + 8, row.tcp_ack, sum)
        if set & SET_TCP_FLAGS:
            change(header + 12, load16(header + 12) & 0xf000 | row.tcp_flags & 0xfff, sum)
        if set & SET_TCP_WINDOW:
            change(header + 14, row.tcp_window, sum)
