/* SPDX-License-Identifier: MIT */
/*
 * See seccomp.h. The filter names what is denied: what libraries, sanitizers
 * and a script's modules call changes from one version to the next, the ways
 * out of a process hardly do. Calls newer than those listed here are not there.
 *
 * Law: a filter sees numbers, not what pointers point to. So what would be
 * decided by memory (clone3, the address of a sendmsg) is denied where that
 * could matter, and sockets of which an address would matter are not made.
 */
#include "seccomp.h"

#include <uv.h>

#if defined(__linux__) && defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__linux__) && defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__linux__) && defined(__riscv) && __riscv_xlen == 64
#define ARCHITECTURE AUDIT_ARCH_RISCV64
#endif

#ifndef ARCHITECTURE

int seccomp_confine(const struct seccomp_needs *needs) {
  (void)needs;
  return UV_ENOTSUP;
}

const char *seccomp_denied(const struct seccomp_needs *needs, size_t index) {
  (void)needs, (void)index;
  return NULL;
}

#else

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine_build.h"

/* The last call of Linux 6.1: set_mempolicy_home_node. */
#define LAST_CALL 450
#define CODE_MAX 256
#define SOCKET_TYPE 0xf
#define NEW_NAMESPACES                                                         \
  (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |               \
   CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

/* ---- what is denied --------------------------------------------------- */

enum unless { NEVER, CONNECT, EXEC, SANITIZER };

struct denial {
  int call;
  enum unless unless;
  const char *name;
};

#define DENY(name, unless)                                                     \
  { SYS_##name, unless, #name }

static const struct denial denials[] = {
    /* Out to others. */
    DENY(connect, CONNECT),
    /* Another program, or one more process of this one. */
    DENY(execve, EXEC),
    DENY(execveat, EXEC),
#ifdef SYS_fork
    DENY(fork, EXEC),
    DENY(vfork, EXEC),
#endif
    /* Into other processes. */
    DENY(ptrace, SANITIZER),
    DENY(process_vm_readv, NEVER),
    DENY(process_vm_writev, NEVER),
    DENY(pidfd_getfd, NEVER),
    DENY(kcmp, NEVER),
    /* A ring connects and opens where no filter sees it. */
    DENY(io_uring_setup, NEVER),
    DENY(io_uring_enter, NEVER),
    DENY(io_uring_register, NEVER),
    /* Other namespaces, other trees of files. */
    DENY(unshare, NEVER),
    DENY(setns, NEVER),
    DENY(mount, NEVER),
    DENY(umount2, NEVER),
    DENY(pivot_root, NEVER),
    DENY(chroot, NEVER),
    DENY(open_tree, NEVER),
    DENY(move_mount, NEVER),
    DENY(fsopen, NEVER),
    DENY(fsconfig, NEVER),
    DENY(fsmount, NEVER),
    DENY(fspick, NEVER),
    DENY(mount_setattr, NEVER),
    DENY(name_to_handle_at, NEVER),
    DENY(open_by_handle_at, NEVER),
    /* Parts of the kernel that have been a way into it. */
    DENY(bpf, NEVER),
    DENY(perf_event_open, NEVER),
    DENY(userfaultfd, NEVER),
    DENY(add_key, NEVER),
    DENY(request_key, NEVER),
    DENY(keyctl, NEVER),
    DENY(fanotify_init, NEVER),
    /* The machine. */
    DENY(init_module, NEVER),
    DENY(finit_module, NEVER),
    DENY(delete_module, NEVER),
    DENY(kexec_load, NEVER),
#ifdef SYS_kexec_file_load
    DENY(kexec_file_load, NEVER),
#endif
    DENY(reboot, NEVER),
    DENY(swapon, NEVER),
    DENY(swapoff, NEVER),
    DENY(settimeofday, NEVER),
    DENY(clock_settime, NEVER),
    DENY(sethostname, NEVER),
    DENY(setdomainname, NEVER),
    DENY(syslog, NEVER),
};
#define DENIALS (sizeof(denials) / sizeof(*denials))

static bool denies(const struct seccomp_needs *needs,
                   const struct denial *denial) {
  switch (denial->unless) {
  case CONNECT:
    return !needs->connect;
  case EXEC:
    return !needs->exec;
  case SANITIZER:
    return !CONFINE_SANITIZED;
  default:
    return true;
  }
}

const char *seccomp_denied(const struct seccomp_needs *needs, size_t index) {
  for (size_t i = 0; i < DENIALS; i++)
    if (denies(needs, &denials[i]) && index-- == 0)
      return denials[i].name;
  return NULL;
}

/* ---- a program for the kernel ----------------------------------------- */

struct code {
  struct sock_filter list[CODE_MAX];
  unsigned short count;
};

static void put(struct code *code, unsigned short what, uint32_t value,
                unsigned yes, unsigned no) {
  if (code->count < CODE_MAX)
    code->list[code->count++] = (struct sock_filter){what, (unsigned char)yes,
                                                     (unsigned char)no, value};
}

static void load(struct code *code, size_t offset) {
  put(code, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void load_call(struct code *code) {
  load(code, offsetof(struct seccomp_data, nr));
}

/* The low half, all there is of an int; the processors above are little-endian.
 */
static void load_argument(struct code *code, unsigned index) {
  load(code, offsetof(struct seccomp_data, args) + index * sizeof(uint64_t));
}

static void answer(struct code *code, uint32_t error) {
  put(code, BPF_RET | BPF_K,
      error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | error, 0, 0);
}

static void if_equal(struct code *code, uint32_t value, unsigned skip) {
  put(code, BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip);
}

static void if_any_bit(struct code *code, uint32_t bits, unsigned skip) {
  put(code, BPF_JMP | BPF_JSET | BPF_K, bits, 0, skip);
}

static void deny(struct code *code, int call, uint32_t error) {
  if_equal(code, (uint32_t)call, 1);
  answer(code, error);
}

/* Denied where the argument has any of these bits. */
static void deny_bits(struct code *code, int call, unsigned argument,
                      uint32_t bits) {
  if_equal(code, (uint32_t)call, 4);
  load_argument(code, argument);
  if_any_bit(code, bits, 1);
  answer(code, EPERM);
  load_call(code);
}

/* Denied where the argument has none of them. */
static void deny_without(struct code *code, int call, unsigned argument,
                         uint32_t bits) {
  if_equal(code, (uint32_t)call, 5);
  load_argument(code, argument);
  if_any_bit(code, bits, 1);
  put(code, BPF_JMP | BPF_JA, 1, 0, 0);
  answer(code, EPERM);
  load_call(code);
}

static void deny_value(struct code *code, int call, unsigned argument,
                       uint32_t value) {
  if_equal(code, (uint32_t)call, 4);
  load_argument(code, argument);
  if_equal(code, value, 1);
  answer(code, EPERM);
  load_call(code);
}

/* ---- sockets ---------------------------------------------------------- */

struct kind {
  int family;
  int type;
  int protocol;
};

#define ALLOW_SOCKET_LENGTH 8

/* For the call that was found to be `socket` or `socketpair`. */
static void allow_socket(struct code *code, const struct kind *kind) {
  load_argument(code, 0);
  if_equal(code, (uint32_t)kind->family, 6);
  load_argument(code, 1);
  put(code, BPF_ALU | BPF_AND | BPF_K, SOCKET_TYPE, 0, 0);
  if_equal(code, (uint32_t)kind->type, 3);
  load_argument(code, 2);
  if_equal(code, (uint32_t)kind->protocol, 1);
  answer(code, 0);
}

static void allow_only(struct code *code, int call, const struct kind *kinds,
                       size_t count) {
  if_equal(code, (uint32_t)call, (unsigned)count * ALLOW_SOCKET_LENGTH + 1);
  for (size_t i = 0; i < count; i++)
    allow_socket(code, &kinds[i]);
  answer(code, EPERM);
}

/* SCTP would connect by a socket option, a raw or netlink socket needs no
   connection to reach somebody: only what is listed is made. */
static void filter_sockets(struct code *code,
                           const struct seccomp_needs *needs) {
  static const struct kind pair = {AF_UNIX, SOCK_STREAM, 0};
  static const struct kind kinds[] = {{AF_INET6, SOCK_STREAM, 0},
                                      {AF_INET, SOCK_STREAM, 0},
                                      {AF_INET6, SOCK_STREAM, IPPROTO_TCP},
                                      {AF_INET, SOCK_STREAM, IPPROTO_TCP},
                                      {AF_INET6, SOCK_DGRAM, 0},
                                      {AF_INET, SOCK_DGRAM, 0},
                                      {AF_INET6, SOCK_DGRAM, IPPROTO_UDP},
                                      {AF_INET, SOCK_DGRAM, IPPROTO_UDP},
                                      {AF_UNIX, SOCK_STREAM, 0}};
  size_t count = !needs->connect ? 4 : !needs->local ? 8 : 9;

  allow_only(code, SYS_socket, kinds, count);
  allow_only(code, SYS_socketpair, &pair, 1);
}

/* TCP connects as it sends, where it is asked to. */
static void filter_sending(struct code *code) {
  deny_bits(code, SYS_sendto, 3, MSG_FASTOPEN);
  deny_bits(code, SYS_sendmsg, 2, MSG_FASTOPEN);
  deny_bits(code, SYS_sendmmsg, 3, MSG_FASTOPEN);
}

static void filter_processes(struct code *code,
                             const struct seccomp_needs *needs) {
  deny_bits(code, SYS_clone, 0, NEW_NAMESPACES);
  if (!needs->exec && !CONFINE_SANITIZED)
    deny_without(code, SYS_clone, 0, CLONE_THREAD);
  deny(code, SYS_clone3, ENOSYS); /* clone is called then */
}

/* ---- all of it -------------------------------------------------------- */

static void build(struct code *code, const struct seccomp_needs *needs) {
  load(code, offsetof(struct seccomp_data, arch));
  put(code, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
  answer(code, ENOSYS);
  load_call(code);
  put(code, BPF_JMP | BPF_JGT | BPF_K, LAST_CALL, 0, 1);
  answer(code, ENOSYS);
  if (!needs->connect)
    filter_sending(code);
  filter_sockets(code, needs);
  filter_processes(code, needs);
  /* Typing into the terminal that the relay was started from. */
  deny_value(code, SYS_ioctl, 1, TIOCSTI);
  for (size_t i = 0; i < DENIALS; i++)
    if (denies(needs, &denials[i]))
      deny(code, denials[i].call, EPERM);
  answer(code, 0);
}

int seccomp_confine(const struct seccomp_needs *needs) {
  struct code code = {.count = 0};
  struct sock_fprog program;
  long result;

  build(&code, needs);
  if (code.count == CODE_MAX)
    return UV_E2BIG;
  program = (struct sock_fprog){code.count, code.list};
  result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                   SECCOMP_FILTER_FLAG_TSYNC, &program);
  if (result > 0) /* a thread that has a filter of its own */
    return UV_EBUSY;
  return result == 0 ? 0 : -errno;
}

#endif
