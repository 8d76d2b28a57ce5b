/* SPDX-License-Identifier: MIT */
/*
 * A bug that got hold of the program: at SIGUSR1 it tries what a confined
 * process must not do, and says on standard error how each try ended, as
 * "escape NAME ok" or the name of the error. ESCAPE_PORT is a port to connect
 * to, ESCAPE_FILE a file that exists and is nobody's business.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *secret(void) {
  const char *path = getenv("ESCAPE_FILE");

  return path != NULL ? path : "";
}

static void tell(const char *name, long result) {
  dprintf(STDERR_FILENO, "escape %s %s\n", name,
          result >= 0 ? "ok" : strerrorname_np(errno));
}

static struct sockaddr_in address(void) {
  const char *port = getenv("ESCAPE_PORT");
  struct sockaddr_in to = {.sin_family = AF_INET};

  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons((unsigned short)(port != NULL ? atoi(port) : 9));
  return to;
}

/* ---- out -------------------------------------------------------------- */

static void try_connect(void) {
  struct sockaddr_in to = address();
  int fd = socket(AF_INET, SOCK_STREAM, 0);

  tell("connect", connect(fd, (struct sockaddr *)&to, sizeof(to)));
  close(fd);
}

static void try_fast_open(void) {
  struct sockaddr_in to = address();
  char byte = 'x';
  struct iovec part = {&byte, 1};
  struct mmsghdr message = {.msg_hdr = {.msg_name = &to,
                                        .msg_namelen = sizeof(to),
                                        .msg_iov = &part,
                                        .msg_iovlen = 1}};
  int fds[3];

  for (int i = 0; i < 3; i++)
    fds[i] = socket(AF_INET, SOCK_STREAM, 0);
  tell("sendto", sendto(fds[0], &byte, 1, MSG_FASTOPEN, (struct sockaddr *)&to,
                        sizeof(to)));
  tell("sendmsg", sendmsg(fds[1], &message.msg_hdr, MSG_FASTOPEN));
  tell("sendmmsg", sendmmsg(fds[2], &message, 1, MSG_FASTOPEN));
  for (int i = 0; i < 3; i++)
    close(fds[i]);
}

static void try_socket(const char *name, int family, int type, int protocol) {
  int fd = socket(family, type, protocol);

  tell(name, fd);
  if (fd >= 0)
    close(fd);
}

static void try_sockets(void) {
  int fds[2];
  int result;

  try_socket("tcp", AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  try_socket("udp", AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  try_socket("local", AF_UNIX, SOCK_STREAM, 0);
  try_socket("netlink", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  try_socket("raw", AF_INET, SOCK_RAW, IPPROTO_TCP);
  try_socket("packet", AF_PACKET, SOCK_RAW, 0);
  try_socket("seqpacket", AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP);
  try_socket("mptcp", AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
  result = socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
  tell("socketpair", result);
  if (result == 0) {
    close(fds[0]);
    close(fds[1]);
  }
}

/* ---- other processes -------------------------------------------------- */

static void try_fork(void) {
  pid_t child = fork();

  if (child == 0)
    _exit(0);
  tell("fork", child);
  if (child > 0)
    waitpid(child, NULL, 0);
}

static void try_processes(void) {
  static char *const arguments[] = {(char *)"nothing", NULL};
  char bytes[8];
  struct iovec here = {bytes, sizeof(bytes)}, there = {bytes, sizeof(bytes)};

  tell("execve", execve("/nothing", arguments, arguments));
  tell("execveat",
       syscall(SYS_execveat, AT_FDCWD, "/nothing", arguments, arguments, 0));
  try_fork();
  tell("clone3", syscall(SYS_clone3, NULL, 0));
  tell("unshare", unshare(CLONE_NEWUSER));
  tell("ptrace", ptrace(PTRACE_PEEKDATA, getppid(), NULL, NULL));
  tell("process_vm_readv", process_vm_readv(getppid(), &here, 1, &there, 1, 0));
  tell("kill", kill(getppid(), 0));
}

/* ---- the kernel, and files -------------------------------------------- */

static void try_kernel(void) {
  tell("io_uring", syscall(SYS_io_uring_setup, 0, NULL));
  tell("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, NULL, 0));
  tell("userfaultfd", syscall(SYS_userfaultfd, -1));
  tell("keyctl", syscall(SYS_keyctl, -1));
  tell("mount", mount("none", "/nothing", "tmpfs", 0, NULL));
  tell("ioctl", ioctl(STDIN_FILENO, TIOCSTI, "x"));
  tell("newer", syscall(999));
#ifdef __x86_64__
  tell("x32", syscall(0x40000000 | SYS_getpid));
#endif
}

static void try_open(const char *name, const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC, 0600);

  tell(name, fd);
  if (fd >= 0)
    close(fd);
}

static void try_files(void) {
  char made[4096];

  snprintf(made, sizeof(made), "%s.new", secret());
  try_open("write", "/etc/passwd", O_WRONLY | O_APPEND);
  try_open("read", secret(), O_RDONLY);
  try_open("make", made, O_WRONLY | O_CREAT);
  unlink(made);
  tell("remove", unlink(secret()));
  try_open("library", "/usr/bin/env", O_RDONLY);
}

static void on_signal(int number) {
  int error = errno;

  (void)number;
  try_connect();
  try_fast_open();
  try_sockets();
  try_processes();
  try_kernel();
  try_files();
  tell("end", 0);
  errno = error;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

  if (getenv("ESCAPE_FILE") != NULL)
    sigaction(SIGUSR1, &action, NULL);
}
