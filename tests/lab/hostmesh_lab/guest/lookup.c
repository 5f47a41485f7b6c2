/* lookup NAME: its addresses, one a line, as the C library finds them.
   lookup NAME PORT PATH: the page there, by HTTP, from the first address that answers. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int fetch(const struct addrinfo *found, const char *name, const char *path)
{
    char text[65536];
    struct timeval limit = {3, 0};
    int body = 0, length, at = socket(found->ai_family, found->ai_socktype, found->ai_protocol);

    setsockopt(at, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(at, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (at < 0 || connect(at, found->ai_addr, found->ai_addrlen)) {
        perror(name);
        if (at >= 0)
            close(at);
        return 0;
    }
    dprintf(at, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, name);
    for (size_t have = 0; (length = read(at, text + have, sizeof text - 1 - have)) > 0;) {
        have += length;
        text[have] = 0;
        char *end = body ? text : strstr(text, "\r\n\r\n");
        if (end) {
            fputs(body ? text : end + 4, stdout);
            body = 1;
            have = 0;
        }
    }
    close(at);
    return body;
}

int main(int count, char **words)
{
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
    char text[64];
    int error;

    if (count != 2 && count != 4)
        return fputs("lookup NAME [PORT PATH]\n", stderr), 2;
    error = getaddrinfo(words[1], count == 4 ? words[2] : NULL, &wanted, &found);
    if (error)
        return fprintf(stderr, "%s: %s\n", words[1], gai_strerror(error)), 1;
    for (; found; found = found->ai_next) {
        if (count == 4) {
            if (fetch(found, words[1], words[3]))
                return 0;
            continue;
        }
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
        puts(text);
    }
    return count == 4;
}
