/* The limit: packets from one TUN to another with a read and a write each, one thread per direction.
 *
 *     relay plain|superpackets|plain-queues|superpackets-queues NETNS NETNS NAME
 *
 * opens an interface of that name in each network namespace, says "ready" and relays until it is killed.
 * With super-packets the kernel hands over up to 64 KiB behind a virtio-net header, and takes it back; with
 * queues each interface has two, each with a thread per direction. */
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

#define USAGE "usage: relay plain|superpackets|plain-queues|superpackets-queues NETNS NETNS NAME\n"

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

static void enter(const char *netns)
{
    int space = open(netns, O_RDONLY | O_CLOEXEC);
    check(space, netns);
    check(setns(space, CLONE_NEWNET), "setns");
    close(space);
}

static int open_queue(const char *name, int flags)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    check(fd, "/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | flags};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    check(ioctl(fd, TUNSETIFF, &request), "TUNSETIFF");
    if (flags & IFF_VNET_HDR) {
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
        fputs(USAGE, stderr);
        return 2;
    }
    int flags = strncmp(arguments[1], "superpackets", 12) ? 0 : IFF_VNET_HDR;
    int queues = strstr(arguments[1], "-queues") ? 2 : 1;
    if (queues > 1)
        flags |= IFF_MULTI_QUEUE;
    int fds[2][2];
    for (int side = 0; side < 2; side++) {
        enter(arguments[2 + side]);
        for (int i = 0; i < queues; i++)
            fds[side][i] = open_queue(arguments[4], flags);
    }
    puts("ready");
    fflush(stdout);

    struct direction directions[4];
    pthread_t threads[4];
    for (int i = 0; i < 2 * queues; i++) {
        directions[i] = (struct direction){fds[i % 2][i / 2], fds[1 - i % 2][i / 2]};
        if (pthread_create(&threads[i], NULL, relay, &directions[i]))
            return 1;
    }
    pthread_join(threads[0], NULL);
}
