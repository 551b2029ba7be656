// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Gloo writes to sockets in a way that raises SIGPIPE when the peer is gone, which by default ends
// the process. Whether a program ignores that signal is not for a library to decide, so it is kept
// from the threads that write.
#pragma once

#include <pthread.h>

#include <csignal>
#include <ctime>

namespace trireme {

// While it lives, SIGPIPE is blocked for this thread and the threads that it starts; one that was
// raised by this thread is taken away at the end.
class NoSigpipe {
 public:
  NoSigpipe() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoSigpipe() {
    const timespec none{};
    if (!was_pending_) sigtimedwait(&pipe_, nullptr, &none);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;

 private:
  sigset_t pipe_;
  sigset_t before_;
  bool was_pending_;
};

}  // namespace trireme
