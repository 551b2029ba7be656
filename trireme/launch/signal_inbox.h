// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The signals that a launcher waits for, as a descriptor for poll() and an inbox to empty.
//
//   const SignalInbox inbox;
//   for (;;) { poll(inbox.fd(), ...);  while (const int signal = inbox.receive()) handle(signal); }
#pragma once

#include <signal.h>

#include "trireme/base/file_descriptor.h"

namespace trireme::detail {

// Blocks SIGCHLD, SIGINT, SIGTERM, SIGTSTP, SIGHUP and SIGPIPE for this thread while it lives, and
// puts the thread back as it was. The last two stay as they are where they are ignored: SIGHUP is
// under nohup. A request that comes while the last worker ends was for the job: it must not strike
// the caller afterwards, so what has not been received is dropped. For a process of one thread.
class SignalInbox {
 public:
  // Throws Error when there is no descriptor to be had.
  SignalInbox();
  SignalInbox(const SignalInbox&) = delete;
  SignalInbox& operator=(const SignalInbox&) = delete;
  ~SignalInbox();

  // Readable while a signal waits; only receive() takes it.
  int fd() const { return fd_.get(); }
  // The next signal that waits, or 0.
  int receive() const;

 private:
  // Constant after construction.
  sigset_t set_{};
  sigset_t old_mask_{};
  struct sigaction old_child_action_ {};
  FileDescriptor fd_;
};

}  // namespace trireme::detail
