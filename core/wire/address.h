/* SPDX-License-Identifier: MIT */
/*
 * Addresses as text and back. Pure: no resolver, no system call. IPv4-mapped
 * IPv6 addresses are unmapped, so that hooks, wire, limits and logs see dotted
 * IPv4. A link-local address carries its scope as the interface's number
 * ("fe80::1%2"); turning names into numbers is the caller's business.
 */
#ifndef RELAY_ADDRESS_H
#define RELAY_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* Room for "[" IPv6 with scope "]:65535" and the end. */
#define ADDRESS_TEXT_MAX 80
/* Room for an address without port. */
#define ADDRESS_HOST_MAX 72

/* Turns ::ffff:192.0.2.1 into 192.0.2.1, in place. */
void relay__address_unmap(struct sockaddr_storage *address);

/* "192.0.2.1:80", "[2001:db8::1]:80"; "unix" for AF_UNIX;
   "unknown" for any other family or NULL. Cut, and always terminated. */
void relay__address_text(const struct sockaddr *address, char *text,
                         size_t size);

/* The same without the port and without brackets. */
void relay__address_host(const struct sockaddr *address, char *text,
                         size_t size);

/* The port; 0 for other families. */
unsigned relay__address_port(const struct sockaddr *address);
void relay__address_set_port(struct sockaddr *address, unsigned port);

/* Length of the sockaddr for its family; 0 for one not known here. */
socklen_t relay__address_length(const struct sockaddr *address);

/* A literal host ("192.0.2.1", "2001:db8::1", "[2001:db8::1]") and port to an
   address, unmapped. 0, or UV_EINVAL, and then nothing is changed. */
int relay__address_parse_host(const char *host, unsigned port,
                              struct sockaddr_storage *address);

/* Whether it can be told as a host: no blanks, nothing but printable ASCII. */
bool relay__address_is_host(const char *host);

/* "HOST:PORT", "[HOST]:PORT" to its halves. `host` gets no brackets; it may be
   a name. 0, or UV_EINVAL, and then nothing is changed. */
int relay__address_split(const char *text, char *host, size_t size,
                         unsigned *port);

#endif
