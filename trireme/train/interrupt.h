// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Asking a run to stop: SIGINT and SIGTERM become a flag that the training loop reads between
// steps, so that a checkpoint is saved and all ranks end together. A second signal ends the process
// at once.
#pragma once

namespace trireme {

// Installs the handlers for its lifetime. One at a time in a process, made by its main thread.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // The signal that came, 0 so far.
  int signal() const;
};

}  // namespace trireme
