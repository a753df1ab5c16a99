// Packets from one TUN to another through wireguard-go's tun package.
//
//	relay plain|offload NETNS NETNS NAME
//
// opens an interface of that name in each network namespace, says "ready" and relays until it is
// killed: one packet a call, or super-packets split and coalesced again.
package main

import (
	"fmt"
	"os"
	"runtime"

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

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: relay plain|offload NETNS NETNS NAME")
		os.Exit(2)
	}
	offload, name := os.Args[1] == "offload", os.Args[4]
	runtime.LockOSThread() // a network namespace belongs to a thread
	a, err := open(os.Args[2], name, offload)
	check(err)
	b, err := open(os.Args[3], name, offload)
	check(err)
	fmt.Println("ready")
	go func() { check(relay(a, b)) }()
	go func() { check(relay(b, a)) }()
	select {}
}
