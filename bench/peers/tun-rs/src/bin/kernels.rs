//! What tun-rs does to the packets of one super-packet, without a device.
//!
//!     kernels FILE
//!
//! FILE holds a virtio-net header and a super-packet.  Each line of input is a task and a number, `split 100`;
//! it is done so many times, and the nanoseconds that took are printed.

use std::hint::black_box;
use std::io::{stdin, BufRead, Write};
use std::time::{Duration, Instant};
use std::{env, fs, io};
use tun_rs::{checksum, gso_split, GROTable, VirtioNetHdr, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};
use tun_rs_peer::Slot;

const MTU: usize = 1500;

struct Kernels {
    header: VirtioNetHdr,
    packet: Vec<u8>,
    work: Vec<u8>,
    slots: Vec<Slot>,
    sizes: Vec<usize>,
    count: usize,
    segments: Vec<Vec<u8>>,
    table: GROTable,
}

impl Kernels {
    fn new(file: Vec<u8>) -> io::Result<Kernels> {
        let packet = file[VIRTIO_NET_HDR_LEN..].to_vec();
        let mut kernels = Kernels {
            header: VirtioNetHdr::decode(&file)?,
            work: packet.clone(),
            packet,
            slots: (0..IDEAL_BATCH_SIZE).map(|_| Slot::new()).collect(),
            sizes: vec![0; IDEAL_BATCH_SIZE],
            count: 0,
            segments: vec![],
            table: GROTable::new(),
        };
        kernels.split()?;
        kernels.segments = (0..kernels.count)
            .map(|i| {
                kernels.slots[i].open(kernels.sizes[i]);
                kernels.slots[i].packet().to_vec()
            })
            .collect();
        Ok(kernels)
    }

    fn split(&mut self) -> io::Result<Duration> {
        self.slots.iter_mut().for_each(|slot| slot.open(MTU));
        // It leaves the headers of its input changed.
        self.work[..100].copy_from_slice(&self.packet[..100]);
        let start = Instant::now();
        self.count = gso_split(
            &mut self.work,
            self.header,
            &mut self.slots,
            &mut self.sizes,
            VIRTIO_NET_HDR_LEN,
            self.packet[0] >> 4 == 6,
        )?;
        Ok(start.elapsed())
    }

    fn coalesce(&mut self) -> io::Result<Duration> {
        for (slot, segment) in self.slots.iter_mut().zip(&self.segments) {
            slot.open(segment.len());
            slot.memory(VIRTIO_NET_HDR_LEN..VIRTIO_NET_HDR_LEN + segment.len())
                .copy_from_slice(segment);
        }
        let count = self.segments.len();
        let start = Instant::now();
        self.table
            .apply_gro(&mut self.slots[..count], VIRTIO_NET_HDR_LEN, true)?;
        let took = start.elapsed();
        assert_eq!(self.slots[0].packet().len(), self.packet.len());
        Ok(took)
    }

    fn checksum(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        black_box(checksum(black_box(&self.packet), 0));
        Ok(start.elapsed())
    }
}

fn main() -> io::Result<()> {
    let mut kernels = Kernels::new(fs::read(env::args().nth(1).expect("FILE"))?)?;
    for line in stdin().lock().lines() {
        let line = line?;
        let (task, times) = line.split_once(' ').expect("TASK TIMES");
        let mut took = Duration::ZERO;
        for _ in 0..times.parse().expect("a number") {
            took += match task {
                "split" => kernels.split()?,
                "coalesce" => kernels.coalesce()?,
                _ => kernels.checksum()?,
            };
        }
        println!("{}", took.as_nanos());
        io::stdout().flush()?;
    }
    Ok(())
}
