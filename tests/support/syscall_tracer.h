// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Runs code in a forked child and stops it before each system call that changes files, so that a
// test can kill it there or note what it does. No timing is involved: the n-th stop is always the
// same.
//
//   for (int n = 0; killed_at_file_change(n, [&] { save(); }); ++n) {
//     expect_old_or_new(folder);      // the child is dead, the n-th change and all later undone
//   }
//
// The child is traced with ptrace; call from a test without other threads.
#pragma once

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace trireme::testing {

// A system call that a traced child is about to make. Paths are as the child wrote them; for calls
// on descriptors, path is the file's.
struct FileChange {
  std::string call;  // "create", "write", "fsync", "rename", "mkdir", "remove"
  std::string path;
  std::string new_path;  // of "rename"
};

namespace detail {

[[noreturn]] inline void throw_errno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

inline std::string read_string(pid_t pid, std::uint64_t address) {
  std::string text;
  char c = 0;
  for (;; ++address) {
    iovec local = {&c, 1};
    iovec remote = {reinterpret_cast<void*>(address), 1};
    if (::process_vm_readv(pid, &local, 1, &remote, 1, 0) != 1) throw_errno("process_vm_readv");
    if (c == '\0') return text;
    text += c;
  }
}

inline std::string path_of(pid_t pid, std::uint64_t fd) {
  std::error_code gone;
  return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd),
                                       gone)
      .string();
}

// False when the call changes no file. An *at() call with a folder's descriptor gives a bare name.
inline bool describe(pid_t pid, const __ptrace_syscall_info& info, FileChange& change) {
  const auto& args = info.entry.args;
  switch (info.entry.nr) {
    case SYS_openat:
      change = {"create", read_string(pid, args[1]), ""};
      return (args[2] & O_CREAT) != 0;
    case SYS_write:
    case SYS_pwrite64:
    case SYS_ftruncate:
      change = {"write", path_of(pid, args[0]), ""};
      return true;
    case SYS_fsync:
    case SYS_fdatasync:
      change = {"fsync", path_of(pid, args[0]), ""};
      return true;
    case SYS_mkdirat:
      change = {"mkdir", read_string(pid, args[1]), ""};
      return true;
    case SYS_unlinkat:
      change = {"remove", read_string(pid, args[1]), ""};
      return true;
    case SYS_renameat:
    case SYS_renameat2:
      change = {"rename", read_string(pid, args[1]), read_string(pid, args[3])};
      return true;
#ifdef SYS_rename  // not on aarch64
    case SYS_rename:
      change = {"rename", read_string(pid, args[0]), read_string(pid, args[1])};
      return true;
    case SYS_mkdir:
      change = {"mkdir", read_string(pid, args[0]), ""};
      return true;
    case SYS_unlink:
    case SYS_rmdir:
      change = {"remove", read_string(pid, args[0]), ""};
      return true;
#endif
    default:
      return false;
  }
}

inline pid_t start_traced(const std::function<void()>& body) {
  const pid_t pid = ::fork();
  if (pid < 0) throw_errno("fork");
  if (pid == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(99);
    ::raise(SIGSTOP);
    try {
      body();
    } catch (...) {
      ::_exit(98);
    }
    ::_exit(0);
  }
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) throw_errno("waitpid");
  if (!WIFSTOPPED(status)) {
    throw std::runtime_error("ptrace is not allowed here; give the container CAP_SYS_PTRACE");
  }
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  if (::ptrace(PTRACE_SETOPTIONS, pid, nullptr, options) != 0) throw_errno("PTRACE_SETOPTIONS");
  return pid;
}

}  // namespace detail

// Runs body in a child; before each change asks proceed, and kills the child when it says no. True
// when it was killed, false when body ended. Throws when body threw.
inline bool trace_file_changes(const std::function<void()>& body,
                               const std::function<bool(const FileChange&)>& proceed) {
  const pid_t pid = detail::start_traced(body);
  int status = 0;
  long signal = 0;
  while (true) {
    if (::ptrace(PTRACE_SYSCALL, pid, nullptr, signal) != 0) detail::throw_errno("PTRACE_SYSCALL");
    if (::waitpid(pid, &status, 0) != pid) detail::throw_errno("waitpid");
    if (WIFEXITED(status) || WIFSIGNALED(status)) break;
    const bool at_call = WSTOPSIG(status) == (SIGTRAP | 0x80);
    signal = at_call ? 0 : WSTOPSIG(status);
    if (!at_call) continue;
    __ptrace_syscall_info info = {};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) <= 0) {
      detail::throw_errno("PTRACE_GET_SYSCALL_INFO");
    }
    FileChange change;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY && detail::describe(pid, info, change) &&
        !proceed(change)) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, &status, 0);
      return true;
    }
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw std::runtime_error("the traced child failed, wait status " + std::to_string(status));
  }
  return false;
}

// Kills body before its change number n. False when it makes no more than n changes.
inline bool killed_at_file_change(int n, const std::function<void()>& body) {
  return trace_file_changes(body, [&](const FileChange&) { return n-- > 0; });
}

// All changes that body makes.
inline std::vector<FileChange> file_changes_of(const std::function<void()>& body) {
  std::vector<FileChange> changes;
  trace_file_changes(body, [&](const FileChange& change) {
    changes.push_back(change);
    return true;
  });
  return changes;
}

}  // namespace trireme::testing
