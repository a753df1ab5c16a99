"""Packets of a queue with virtio-net headers: what is read is split, what is written is coalesced."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tuntap._kernels.gro cimport GRO_HEADERS_MAX, WINDOW, Window
from tuntap._kernels.gso cimport Split
from tuntap._os.lock cimport AtomicUint32
from tuntap._os.native cimport LARGEST_HEADER, Handle, Part, SlotView

cdef enum:
    LARGEST_PACKET = 65535
    LARGEST_FRAME = LARGEST_PACKET + 22   # with an Ethernet header and two VLAN tags
    INBOX_SIZE = 65536 + 128      # a frame, and room to see a cut

cdef struct Offload:
    bint whole                    # batches carry super-packets as they are
    bint trusted                  # checksums are the caller's matter: neither completed nor looked at
    bint is_frame
    AtomicUint32 *types           # Offload bits of what may be written, of all queues
    uint32_t rejected             # those that the kernel refused although it should not have

    # Receive, under the lock of that path.  A super-packet that did not fit the slots waits in `inbox`.
    Split split
    int next
    int segments                  # of the last packet that was read; 0 if it was no super-packet
    uint8_t *inbox                # in `memory`, behind the virtio-net header
    uint8_t memory[LARGEST_HEADER + INBOX_SIZE]

    # Send, under the lock of that path.
    Window window
    uint64_t call                 # number of the call that was last here
    bint is_partial               # which is not at its end
    int resume                    # the packet where it goes on, by its place in the order of the call
    int base                      # place of the first packet of the window
    int item                      # next of its items
    int sent                      # of a super-packet that the kernel refused, segments that went
    uint8_t headers[LARGEST_HEADER + GRO_HEADERS_MAX]
    Part pieces[WINDOW + 1]
    uint8_t outbox[INBOX_SIZE]

cdef void offload_begin(
    Offload *offload, AtomicUint32 *types, bint is_frame, bint whole, bint trusted,
) noexcept nogil

# As os_recv and os_send, but a receive that found nothing more says EAGAIN.  `call` is 0 in the first part
# of a call that may have to wait, and is to be handed over as it is with the next part: another call may
# come between.
cdef int offload_recv(Offload *offload, Handle *handle, SlotView *slots, int stop, int *error) noexcept nogil
cdef int offload_send(
    Offload *offload, Handle *handle, SlotView *slots, int start, int stop, uint64_t *call, int *error,
) noexcept nogil
