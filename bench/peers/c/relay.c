/* The limit: packets from one TUN to another with a read and a write each, one thread per direction.
 *
 *     relay plain|superpackets NETNS NETNS NAME
 *
 * opens an interface of that name in each network namespace, says "ready" and relays until it is killed.
 * With super-packets the kernel hands over up to 64 KiB behind a virtio-net header, and takes it back. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct direction {
    int from, to;
};

static void check(int result, const char *what)
{
    if (result >= 0)
        return;
    perror(what);
    exit(1);
}

static int open_tun(const char *netns, const char *name, int superpackets)
{
    int space = open(netns, O_RDONLY | O_CLOEXEC);
    check(space, netns);
    check(setns(space, CLONE_NEWNET), "setns");
    close(space);

    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    check(fd, "/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | (superpackets ? IFF_VNET_HDR : 0)};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    check(ioctl(fd, TUNSETIFF, &request), "TUNSETIFF");
    if (superpackets) {
        int size = sizeof(struct virtio_net_hdr);
        check(ioctl(fd, TUNSETVNETHDRSZ, &size), "TUNSETVNETHDRSZ");
        unsigned long tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
#ifdef TUN_F_USO4
        if (ioctl(fd, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) == 0)
            return fd;
#endif
        check(ioctl(fd, TUNSETOFFLOAD, tcp), "TUNSETOFFLOAD");
    }
    return fd;
}

static void *relay(void *argument)
{
    const struct direction *direction = argument;
    static __thread unsigned char packet[sizeof(struct virtio_net_hdr) + 65535];
    for (;;) {
        ssize_t size = read(direction->from, packet, sizeof packet);
        check(size, "read");
        check(write(direction->to, packet, size), "write");
    }
    return NULL;
}

int main(int count, char **arguments)
{
    if (count != 5) {
        fprintf(stderr, "usage: relay plain|superpackets NETNS NETNS NAME\n");
        return 2;
    }
    int superpackets = strcmp(arguments[1], "superpackets") == 0;
    int a = open_tun(arguments[2], arguments[4], superpackets);
    int b = open_tun(arguments[3], arguments[4], superpackets);
    puts("ready");
    fflush(stdout);

    struct direction there = {a, b}, back = {b, a};
    pthread_t thread;
    if (pthread_create(&thread, NULL, relay, &there))
        return 1;
    relay(&back);
}
