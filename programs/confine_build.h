/* SPDX-License-Identifier: MIT */
/*
 * What a build needs of its own. A sanitizer's look for leaks is a process that
 * traces this one, and its reports read the program's file.
 */
#ifndef RELAY_PROGRAMS_CONFINE_BUILD_H
#define RELAY_PROGRAMS_CONFINE_BUILD_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CONFINE_SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CONFINE_SANITIZED true
#endif
#endif

#ifndef CONFINE_SANITIZED
#define CONFINE_SANITIZED false
#endif

#endif
