//! One packet a call out of a TUN, or into it, through tun-rs.
//!
//!     pump NAME
//!
//! opens the interface and says "ready".  Each line of input is a task and two numbers, `receive 64 512`:
//! packets are moved, first so many that do not count, then so many in the nanoseconds that are printed.
//! `packet HEX` says what is sent.

use std::io::{self, stdin, BufRead, Write};
use std::time::Instant;
use std::{env, process};
use tun_rs::{DeviceBuilder, SyncDevice};

fn receive(device: &SyncDevice, memory: &mut [u8], count: usize) -> io::Result<()> {
    for _ in 0..count {
        device.recv(memory)?;
    }
    Ok(())
}

fn send(device: &SyncDevice, packet: &[u8], count: usize) -> io::Result<()> {
    for _ in 0..count {
        device.send(packet)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let Some(name) = env::args().nth(1) else {
        eprintln!("usage: pump NAME");
        process::exit(2);
    };
    let device = DeviceBuilder::new()
        .name(name)
        .inherit_enable_state()
        .build_sync()?;
    println!("ready");
    let mut memory = vec![0; 65535];
    let mut packet = vec![];
    for line in stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "packet" {
            packet = (0..words[1].len() / 2)
                .map(|i| u8::from_str_radix(&words[1][2 * i..2 * i + 2], 16).expect("hex"))
                .collect();
            continue;
        }
        let lead_in = words[1].parse().expect("a number");
        let count = words[2].parse().expect("a number");
        let start;
        if words[0] == "receive" {
            receive(&device, &mut memory, lead_in)?;
            start = Instant::now();
            receive(&device, &mut memory, count)?;
        } else {
            send(&device, &packet, lead_in)?;
            start = Instant::now();
            send(&device, &packet, count)?;
        }
        println!("{}", start.elapsed().as_nanos());
        io::stdout().flush()?;
    }
    Ok(())
}
