//! Packets from one TUN to another through tun-rs on tokio, a task for each direction.
//!
//!     relay_tokio plain|offload NETNS NETNS NAME
//!
//! does what relay.rs does, through one queue.

use std::sync::Arc;
use std::{env, io, process};
use tun_rs::{AsyncDevice, GROTable, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};
use tun_rs_peer::{interface, Slot, MTU};

async fn plain(from: &AsyncDevice, to: &AsyncDevice) -> io::Result<()> {
    let mut packet = vec![0; 65535];
    loop {
        let size = from.recv(&mut packet).await?;
        to.send(&packet[..size]).await?;
    }
}

async fn offload(from: &AsyncDevice, to: &AsyncDevice) -> io::Result<()> {
    let mut super_packet = vec![0; VIRTIO_NET_HDR_LEN + 65535];
    let mut slots: Vec<Slot> = (0..IDEAL_BATCH_SIZE).map(|_| Slot::new()).collect();
    let mut sizes = vec![0; IDEAL_BATCH_SIZE];
    let mut table = GROTable::new();
    slots.iter_mut().for_each(|slot| slot.open(MTU));
    loop {
        let count = from
            .recv_multiple(&mut super_packet, &mut slots, &mut sizes, VIRTIO_NET_HDR_LEN)
            .await?;
        for (slot, size) in slots.iter_mut().zip(&sizes[..count]) {
            slot.open(*size);
        }
        to.send_multiple(&mut table, &mut slots[..count], VIRTIO_NET_HDR_LEN)
            .await?;
        slots[..count].iter_mut().for_each(|slot| slot.open(MTU));
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let [_, mode, netns_a, netns_b, name] = &arguments[..] else {
        eprintln!("usage: relay_tokio plain|offload NETNS NETNS NAME");
        process::exit(2);
    };
    let a = Arc::new(interface(netns_a, name, mode)?.build_async()?);
    let b = Arc::new(interface(netns_b, name, mode)?.build_async()?);
    println!("ready");

    let is_plain = mode == "plain";
    let tasks = [(a.clone(), b.clone()), (b, a)].map(|(from, to)| {
        tokio::spawn(async move {
            let end = if is_plain {
                plain(&from, &to).await
            } else {
                offload(&from, &to).await
            };
            eprintln!("{end:?}");
            process::exit(1);
        })
    });
    for task in tasks {
        task.await?;
    }
    Ok(())
}
