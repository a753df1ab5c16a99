//! Packets from one TUN to another through tun-rs.
//!
//!     relay plain|offload|plain-queues|offload-queues NETNS NETNS NAME
//!
//! opens an interface of that name in each network namespace, says "ready" and relays until it is
//! killed: one packet a call, or super-packets split and coalesced again; through one queue or two.

use std::sync::Arc;
use std::{env, io, process, thread};
use tun_rs::{GROTable, SyncDevice, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};
use tun_rs_peer::{interface, Slot, MTU};

fn open(netns: &str, name: &str, mode: &str) -> io::Result<Vec<Arc<SyncDevice>>> {
    let device = interface(netns, name, mode)?.build_sync()?;
    let mut queues = vec![];
    if mode.ends_with("-queues") {
        queues.push(Arc::new(device.try_clone()?));
    }
    queues.push(Arc::new(device));
    Ok(queues)
}

fn plain(from: &SyncDevice, to: &SyncDevice) -> io::Result<()> {
    let mut packet = vec![0; 65535];
    loop {
        let size = from.recv(&mut packet)?;
        to.send(&packet[..size])?;
    }
}

fn offload(from: &SyncDevice, to: &SyncDevice) -> io::Result<()> {
    let mut super_packet = vec![0; VIRTIO_NET_HDR_LEN + 65535];
    let mut slots: Vec<Slot> = (0..IDEAL_BATCH_SIZE).map(|_| Slot::new()).collect();
    let mut sizes = vec![0; IDEAL_BATCH_SIZE];
    let mut table = GROTable::new();
    slots.iter_mut().for_each(|slot| slot.open(MTU));
    loop {
        let count = from.recv_multiple(&mut super_packet, &mut slots, &mut sizes, VIRTIO_NET_HDR_LEN)?;
        for (slot, size) in slots.iter_mut().zip(&sizes[..count]) {
            slot.open(*size);
        }
        to.send_multiple(&mut table, &mut slots[..count], VIRTIO_NET_HDR_LEN)?;
        slots[..count].iter_mut().for_each(|slot| slot.open(MTU));
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let [_, mode, netns_a, netns_b, name] = &arguments[..] else {
        eprintln!("usage: relay plain|offload|plain-queues|offload-queues NETNS NETNS NAME");
        process::exit(2);
    };
    let (a, b) = (open(netns_a, name, mode)?, open(netns_b, name, mode)?);
    println!("ready");

    let relay = if mode.starts_with("plain") {
        plain
    } else {
        offload
    };
    let threads: Vec<_> = (a.iter().zip(&b))
        .flat_map(|(a, b)| [(a.clone(), b.clone()), (b.clone(), a.clone())])
        .map(|(from, to)| {
            thread::spawn(move || {
                let end = relay(&from, &to);
                eprintln!("{end:?}");
                process::exit(1);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    Ok(())
}
