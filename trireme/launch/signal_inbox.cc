// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/signal_inbox.h"

#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>

#include <algorithm>

#include "trireme/base/error.h"

namespace trireme::detail {

SignalInbox::SignalInbox() {
  sigemptyset(&set_);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGTSTP}) sigaddset(&set_, signal);
  for (const int signal : {SIGHUP, SIGPIPE}) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&set_, signal);
  }
  fd_ = FileDescriptor(signalfd(-1, &set_, SFD_CLOEXEC));
  if (!fd_) throw_error<Error>("no descriptor for signals: {}", strerror(errno));
  // An ignored SIGCHLD would reap the workers behind our back.
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &standard, &old_child_action_);
  pthread_sigmask(SIG_BLOCK, &set_, &old_mask_);
}

SignalInbox::~SignalInbox() {
  while (receive() != 0) {
  }
  sigaction(SIGCHLD, &old_child_action_, nullptr);
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

int SignalInbox::receive() const {
  constexpr timespec kNow{0, 0};
  return std::max(sigtimedwait(&set_, nullptr, &kNow), 0);
}

}  // namespace trireme::detail
