//! What the programs have in common.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use tun_rs::{DeviceBuilder, ExpandBuffer, VIRTIO_NET_HDR_LEN};

pub const MTU: usize = 1500;

/// An interface to be made in a network namespace, which this thread enters.
pub fn interface(netns: &str, name: &str, mode: &str) -> io::Result<DeviceBuilder> {
    let space = File::open(netns)?;
    if unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(DeviceBuilder::new().name(name).enable(false).with(|builder| {
        builder
            .offload(mode.starts_with("offload"))
            .multi_queue(mode.ends_with("-queues"));
    }))
}

/// A packet behind room for its virtio-net header, in memory that never moves and is never cleared:
/// what tun-rs wants to receive into is as large as it may get, what it is to send as large as it is.
pub struct Slot {
    memory: Box<[u8]>,
    size: usize,
}

impl Slot {
    pub fn new() -> Slot {
        // tun-rs merges up to twice the offset below the capacity.
        Slot {
            memory: vec![0; 2 * VIRTIO_NET_HDR_LEN + 65535].into_boxed_slice(),
            size: 0,
        }
    }

    pub fn open(&mut self, segment: usize) {
        self.size = VIRTIO_NET_HDR_LEN + segment;
    }

    pub fn packet(&self) -> &[u8] {
        &self.memory[VIRTIO_NET_HDR_LEN..self.size]
    }

    pub fn memory(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.memory[range]
    }
}

impl Default for Slot {
    fn default() -> Slot {
        Slot::new()
    }
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.size]
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.size]
    }
}

impl ExpandBuffer for Slot {
    fn buf_capacity(&self) -> usize {
        self.memory.len()
    }

    fn buf_resize(&mut self, size: usize, value: u8) {
        if size > self.size {
            self.memory[self.size..size].fill(value);
        }
        self.size = size;
    }

    fn buf_extend_from_slice(&mut self, more: &[u8]) {
        self.memory[self.size..self.size + more.len()].copy_from_slice(more);
        self.size += more.len();
    }
}
