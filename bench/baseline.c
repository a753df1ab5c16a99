/* The C program that the batch calls are measured against: one system call per packet, 64 slots in
 * turn, nothing else.  It takes the time itself, so that the way Python calls it does not count. */
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Nanoseconds of `count` reads, -1 if one of them failed. */
int64_t read_loop(int fd, uint8_t *slots, int64_t stride, int32_t *lengths, int capacity, int count)
{
    int64_t start = now();
    int slot = 0;
    for (int i = 0; i < count; i++) {
        ssize_t size = read(fd, slots + slot * stride, stride);
        if (size <= 0)
            return -1;
        lengths[slot] = (int32_t)size;
        if (++slot == capacity)
            slot = 0;
    }
    return now() - start;
}

/* Nanoseconds of `count` writes, -1 if one of them failed. */
int64_t write_loop(int fd, const uint8_t *slots, int64_t stride, const int32_t *lengths, int capacity, int count)
{
    int64_t start = now();
    int slot = 0;
    for (int i = 0; i < count; i++) {
        if (write(fd, slots + slot * stride, lengths[slot]) != lengths[slot])
            return -1;
        if (++slot == capacity)
            slot = 0;
    }
    return now() - start;
}

/* Nanoseconds in which the bytes of `count` packets are summed, as 32-bit words. */
int64_t sum_loop(const uint8_t *slots, int64_t stride, const int32_t *lengths, int count, volatile uint64_t *total)
{
    int64_t start = now();
    for (int i = 0; i < count; i++) {
        const uint8_t *packet = slots + i * stride;
        uint64_t sum = 0;
        int32_t at = 0;
        for (; at + 4 <= lengths[i]; at += 4) {
            uint32_t word;
            memcpy(&word, packet + at, 4);
            sum += word;
        }
        for (; at < lengths[i]; at++)
            sum += packet[at];
        *total += sum;
    }
    return now() - start;
}
