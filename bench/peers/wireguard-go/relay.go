// Packets from one TUN to another through wireguard-go's tun package.
//
//	relay plain|offload NETNS NETNS NAME
//
// opens an interface of that name in each network namespace, says "ready" and relays until it is
// killed: one packet a call, or super-packets split and coalesced again.
//
//	relay pump NAME
//
// moves one packet a call when it is told to, as peers/tun-rs/src/bin/pump.rs does.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const (
	mtu    = 1500
	room   = 16 // in front of each packet, as WireGuard's own header takes; the virtio-net header fits
	memory = room + 65535
)

func open(netns, name string, offload bool) (tun.Device, error) {
	space, err := os.Open(netns)
	if err != nil {
		return nil, err
	}
	defer space.Close()
	if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	if offload {
		return tun.CreateTUN(name, mtu)
	}
	// CreateTUN always asks for offload; without it the package adopts a descriptor.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, err
	}
	device, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	return device, err
}

func relay(from, to tun.Device) error {
	memories := make([][]byte, from.BatchSize())
	packets := make([][]byte, len(memories))
	sizes := make([]int, len(memories))
	for i := range memories {
		memories[i] = make([]byte, memory)
	}
	for {
		count, err := from.Read(memories, sizes, room)
		if err != nil {
			return err
		}
		for i, size := range sizes[:count] {
			packets[i] = memories[i][:room+size]
		}
		if _, err := to.Write(packets[:count], room); err != nil {
			return err
		}
	}
}

func pump(device tun.Device) {
	sizes := []int{0}
	memories := [][]byte{make([]byte, memory)}
	packets := [][]byte{nil}
	move := func(task string, count int) {
		for ; count > 0; count-- {
			var err error
			if task == "receive" {
				_, err = device.Read(memories, sizes, room)
			} else {
				_, err = device.Write(packets, room)
			}
			check(err)
		}
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var task, content string
		var leadIn, count int
		if _, err := fmt.Sscanf(lines.Text(), "packet %s", &content); err == nil {
			packet, err := hex.DecodeString(content)
			check(err)
			packets[0] = append(make([]byte, room), packet...)
			continue
		}
		_, err := fmt.Sscan(lines.Text(), &task, &leadIn, &count)
		check(err)
		move(task, leadIn)
		start := time.Now()
		move(task, count)
		fmt.Println(time.Since(start).Nanoseconds())
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	runtime.LockOSThread() // a network namespace belongs to a thread
	if len(os.Args) == 3 && os.Args[1] == "pump" {
		device, err := open("/proc/thread-self/ns/net", os.Args[2], false)
		check(err)
		pump(device)
		return
	}
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: relay plain|offload NETNS NETNS NAME, or relay pump NAME")
		os.Exit(2)
	}
	offload, name := os.Args[1] == "offload", os.Args[4]
	a, err := open(os.Args[2], name, offload)
	check(err)
	b, err := open(os.Args[3], name, offload)
	check(err)
	fmt.Println("ready")
	go func() { check(relay(a, b)) }()
	go func() { check(relay(b, a)) }()
	select {}
}
