/* SPDX-License-Identifier: MIT */
/*
 * The polite way to close after a last line: our FIN, then what the peer still
 * sends is read and dropped for at most a second, since closing over unread
 * bytes is a reset and could destroy that line before it was read.
 */
#ifndef RELAY_FAREWELL_H
#define RELAY_FAREWELL_H

#include "net/stream.h"

/* Takes the stream over. Where memory is short it is just closed. */
void relay__farewell(struct stream *stream);

#endif
