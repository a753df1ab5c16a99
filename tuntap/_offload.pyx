"""The way of a packet through a queue with virtio-net headers.

Receiving, a super-packet is read into `inbox`, which stays in the cache, and its segments are copied to
their slots and summed in one pass.  Sending, a super-packet is written from the slots its packets are in,
behind headers of its own.
"""
from libc.errno cimport EAGAIN, EBADMSG, EINVAL, EIO
from libc.stdint cimport int32_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tuntap._kernels.cursor cimport Cursor, cursor_set
from tuntap._kernels.gro cimport GRO_TCPV4, GRO_TCPV6, GRO_UDP, Item, gro_add, gro_begin, gro_headers
from tuntap._kernels.gso cimport gso_begin, gso_complete, gso_size, gso_write
from tuntap._kernels.virtio cimport (
    VIRTIO_GSO_ECN, VIRTIO_GSO_NONE, VIRTIO_GSO_TCPV4, VIRTIO_GSO_TCPV6, VIRTIO_GSO_UDP_L4, VIRTIO_HEADER_SIZE,
    VirtioHeader, virtio_decode, virtio_encode,
)
from tuntap._os.lock cimport AtomicUint32
from tuntap._os.native cimport (
    OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP, Handle, SlotView, os_recv_parts, os_send_parts,
    slot_at, slot_fill, slot_length, slot_number,
)

if (GRO_TCPV4, GRO_TCPV6, GRO_UDP) != (OFFLOAD_TCP4, OFFLOAD_TCP6, OFFLOAD_UDP):
    raise AssertionError("the contract and the kernel number the offloads differently")


cdef void offload_begin(
    Offload *offload, AtomicUint32 *types, bint is_frame, bint whole, bint trusted,
) noexcept nogil:
    offload.whole = whole
    offload.trusted = trusted
    offload.is_frame = is_frame
    offload.types = types
    offload.rejected = 0
    offload.next = offload.segments = 0
    offload.inbox = offload.memory + LARGEST_HEADER
    offload.call = 0
    offload.is_partial = False
    offload.sent = 0


# --- receive ---

cdef int offload_recv(Offload *offload, Handle *handle, SlotView *slots, int stop, int *error) noexcept nogil:
    cdef int filled = deliver(offload, slots, 0, stop)
    cdef int result
    error[0] = 0
    # A super-packet that is like the last one should not be torn between two calls.
    while filled < stop and (filled == 0 or stop - filled >= offload.segments):
        result = receive_next(offload, handle, slots, filled, stop)
        if result <= 0:
            error[0] = -result
            break
        filled += result
    return filled


cdef int deliver(Offload *offload, SlotView *slots, int slot, int stop) noexcept nogil:
    """Copy segments of the super-packet in `inbox` to slots; how many."""
    cdef int first = slot
    cdef Cursor target
    while offload.next < offload.segments and slot < stop:
        cursor_set(&target, slot_at(slots, slot), slots.slot_size)
        gso_write(&offload.split, offload.next, &target)
        slot_fill(slots, slot, gso_size(&offload.split, offload.next))
        clear_header(slots, slot)
        offload.next += 1
        slot += 1
    return slot - first


cdef inline void clear_header(SlotView *slots, int slot) noexcept nogil:
    if slots.headers != NULL:
        memset(slots.headers + slot * VIRTIO_HEADER_SIZE, 0, VIRTIO_HEADER_SIZE)


cdef int receive_next(Offload *offload, Handle *handle, SlotView *slots, int slot, int stop) noexcept nogil:
    """One read: slots filled, or -errno."""
    cdef VirtioHeader header
    cdef Cursor packet
    cdef Part part
    cdef intptr_t size
    if offload.whole and slots.headers != NULL:
        return receive_whole(offload, handle, slots, slot)
    # One piece of memory takes one plain read.
    part.base = offload.inbox - handle.header_size
    part.size = handle.header_size + INBOX_SIZE
    size = os_recv_parts(handle, &part, 1)
    if size < 0:
        return <int> size
    size -= handle.header_size
    if size < 1 or size > INBOX_SIZE:
        return -EBADMSG
    cursor_set(&packet, offload.inbox - handle.header_size, VIRTIO_HEADER_SIZE)
    virtio_decode(&packet, &header)
    cursor_set(&packet, offload.inbox, size)
    offload.next = 0
    offload.segments = gso_begin(&offload.split, &packet, &header, offload.is_frame, not offload.trusted)
    if offload.segments > 0:
        return deliver(offload, slots, slot, stop)
    if offload.segments < 0 or not offload.trusted and gso_complete(&packet, &header) < 0:
        offload.segments = 0
        return -EBADMSG
    memcpy(slot_at(slots, slot), offload.inbox, min(size, <intptr_t> slots.slot_size))
    slot_fill(slots, slot, size)
    clear_header(slots, slot)
    return 1


cdef int receive_whole(Offload *offload, Handle *handle, SlotView *slots, int slot) noexcept nogil:
    """One read straight into a slot, and its header beside it; 1 or -errno."""
    cdef Part parts[3]
    cdef intptr_t size
    offload.next = offload.segments = 0
    parts[0].base = offload.inbox - handle.header_size
    parts[0].size = handle.header_size
    parts[1].base = slot_at(slots, slot)
    parts[1].size = slots.slot_size
    # What does not fit the slot is read all the same, to be seen.
    parts[2].base = offload.inbox
    parts[2].size = INBOX_SIZE
    size = os_recv_parts(handle, parts, 2 if slots.slot_size >= LARGEST_FRAME else 3)
    if size < 0:
        return <int> size
    size -= handle.header_size
    if size < 1:
        return -EBADMSG
    memcpy(slots.headers + slot * VIRTIO_HEADER_SIZE, parts[0].base, VIRTIO_HEADER_SIZE)
    slot_fill(slots, slot, size)
    return 1


# --- send ---

cdef int offload_send(
    Offload *offload, Handle *handle, SlotView *slots, int start, int stop, uint64_t *call, int *error,
) noexcept nogil:
    cdef int at = start
    cdef int result = 0
    error[0] = 0
    if call[0] == 0 or call[0] != offload.call or offload.resume != start:
        offload.is_partial = False
        offload.sent = 0
        offload.call += 1
        call[0] = offload.call
    if offload.whole and slots.headers != NULL:
        while at < stop and result == 0:
            result = send_whole(offload, handle, slots, at)
            at += result == 0
    else:
        while at < stop and result == 0:
            result = 0 if offload.is_partial else look(offload, slots, at, stop)
            while result == 0 and offload.item < offload.window.items:
                result = send_item(offload, handle, slots, &offload.window.item[offload.item])
                offload.item += result == 0
            if offload.is_partial:
                at = offload.base + offload.window.packets
                if result < 0:
                    at = offload.base + first_unsent(offload)
            if result != -EAGAIN:
                offload.is_partial = False
    if result < 0 and result != -EAGAIN:
        error[0] = -result
    offload.resume = at
    return at - start


cdef inline int first_unsent(const Offload *offload) noexcept nogil:
    """The packet of the window before which all went; of those behind it perhaps some."""
    cdef const Item *item = &offload.window.item[offload.item]
    # The first packets of an item that the kernel refused may have gone alone.
    if offload.item + 1 < offload.window.items:
        return min(item.first, offload.window.item[offload.item + 1].first)
    return item.first


cdef int look(Offload *offload, SlotView *slots, int start, int stop) noexcept nogil:
    """Find out what of the next packets can be merged."""
    cdef int32_t largest = min(slots.slot_size, <int32_t> LARGEST_PACKET)
    cdef int32_t length
    cdef int at = start
    gro_begin(&offload.window, offload.types[0], offload.is_frame, offload.trusted, True)
    while at < stop:
        length = slot_length(slots, at)
        if length < 1 or length > largest:
            if at == start:
                return -EINVAL
            break
        if gro_add(&offload.window, slot_at(slots, at), length) < 0:
            break
        at += 1
    offload.is_partial = True
    offload.base = start
    offload.item = 0
    return 0


cdef int write_packet(
    Offload *offload, Handle *handle, const VirtioHeader *header, size_t size, int pieces,
) noexcept nogil:
    """Write the virtio-net header, `size` bytes of packet headers behind it, and the pieces; 0 or -errno."""
    cdef Cursor target
    cdef intptr_t result
    memset(offload.headers, 0, handle.header_size)
    cursor_set(&target, offload.headers, VIRTIO_HEADER_SIZE)
    virtio_encode(&target, header)
    offload.pieces[0].base = offload.headers
    offload.pieces[0].size = handle.header_size + size
    result = os_send_parts(handle, offload.pieces, 1 + pieces)
    return <int> result if result < 0 else 0


cdef int send_item(Offload *offload, Handle *handle, SlotView *slots, Item *item) noexcept nogil:
    """Write one item: super-packet or packet."""
    cdef VirtioHeader header
    cdef Cursor target
    cdef Item single
    cdef size_t size
    cdef size_t left
    cdef int pieces = 0
    cdef int packet = item.first
    cdef int result
    if not offload.sent:
        cursor_set(&target, offload.headers + handle.header_size, GRO_HEADERS_MAX)
        size = gro_headers(&offload.window, item, &header, &target)
        left = item.size - size
        while packet >= 0:
            offload.pieces[pieces + 1].base = slot_at(slots, offload.base + packet) + size
            offload.pieces[pieces + 1].size = min(left, <size_t> item.gso_size) if item.count > 1 else left
            left -= offload.pieces[pieces + 1].size
            pieces += 1
            packet = offload.window.next[packet]
        result = write_packet(offload, handle, &header, size, pieces)
        if item.count == 1 or result not in (-EINVAL, -EIO):
            return result
    # Refused: its packets one by one, each as if nothing had been merged.
    while item.count:
        single = item[0]
        single.count = 1
        single.packet = slot_at(slots, offload.base + item.first)
        left = item.size - item.payload
        single.size = single.first_size = <uint32_t> (item.payload + min(left, <size_t> item.gso_size))
        cursor_set(&target, offload.headers + handle.header_size, GRO_HEADERS_MAX)
        size = gro_headers(&offload.window, &single, &header, &target)
        offload.pieces[1].base = <void *> (single.packet + size)
        offload.pieces[1].size = single.size - size
        result = write_packet(offload, handle, &header, size, 1)
        if result < 0:
            return result
        reject(offload, item.type)
        offload.sent = 1
        item.size -= single.size - item.payload
        item.count -= 1
        item.first = offload.window.next[item.first]
    offload.sent = 0
    return 0


cdef inline void reject(Offload *offload, uint32_t type) noexcept nogil:
    """The kernel took a segment of what it did not take whole: no more super-packets of this type."""
    offload.rejected |= type & offload.types[0]
    offload.types[0] &= ~type


cdef int send_whole(Offload *offload, Handle *handle, SlotView *slots, int slot) noexcept nogil:
    """Write a packet with the header the caller gave it, split if the kernel does not take it whole."""
    cdef int32_t length = slot_length(slots, slot)
    cdef VirtioHeader header
    cdef VirtioHeader plain
    cdef Split split
    cdef Cursor packet
    cdef uint32_t type
    cdef int segments
    cdef int result
    if length < 1 or length > min(slots.slot_size, <int32_t> LARGEST_PACKET):
        return -EINVAL
    cursor_set(&packet, slots.headers + slot_number(slots, slot) * VIRTIO_HEADER_SIZE, VIRTIO_HEADER_SIZE)
    memset(&header, 0, sizeof(header))
    virtio_decode(&packet, &header)
    type = type_of(&header)
    offload.pieces[1].base = slot_at(slots, slot)
    offload.pieces[1].size = length
    if type == 0 or not offload.sent and type & offload.types[0]:
        result = write_packet(offload, handle, &header, 0, 1)
        if type == 0 or result not in (-EINVAL, -EIO):
            return result
    cursor_set(&packet, slot_at(slots, slot), length)
    # A wrong header must not look like a type that the kernel does not take.
    segments = -EINVAL if header.hdr_len > length else gso_begin(
        &split, &packet, &header, offload.is_frame, True)
    if segments < 0:
        return -EINVAL
    if segments == 0:
        # No larger than one segment: some kernels refuse to see a super-packet in it (6.6.44).
        header.gso_type = VIRTIO_GSO_NONE
        header.gso_size = 0
        return write_packet(offload, handle, &header, 0, 1)
    memset(&plain, 0, sizeof(plain))
    while offload.sent < segments:
        cursor_set(&packet, offload.outbox, INBOX_SIZE)
        gso_write(&split, offload.sent, &packet)
        offload.pieces[1].base = offload.outbox
        offload.pieces[1].size = gso_size(&split, offload.sent)
        result = write_packet(offload, handle, &plain, 0, 1)
        if result < 0:
            if result != -EAGAIN:
                offload.sent = 0
            return result
        reject(offload, type)
        offload.sent += 1
    offload.sent = 0
    return 0


cdef uint32_t type_of(const VirtioHeader *header) noexcept nogil:
    """What kind of super-packet a header speaks of, 0 for none."""
    cdef uint8_t kind = header.gso_type & <uint8_t> ~VIRTIO_GSO_ECN
    if kind == VIRTIO_GSO_TCPV4:
        return GRO_TCPV4
    if kind == VIRTIO_GSO_TCPV6:
        return GRO_TCPV6
    if kind == VIRTIO_GSO_UDP_L4:
        return GRO_UDP
    return 0
