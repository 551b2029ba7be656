// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/termination.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "trireme/base/error.h"

namespace trireme {
namespace {

sigset_t requests_to_end() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

Termination::Termination()
    : set_(requests_to_end()),
      signals_(signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK)),
      closing_(eventfd(0, EFD_CLOEXEC)) {
  if (!signals_ || !closing_) {
    throw_error<Error>("cannot wait for signals: {}", std::strerror(errno));
  }
  pthread_sigmask(SIG_BLOCK, &set_, &old_mask_);
  thread_ = std::thread([this] { watch(); });
}

Termination::~Termination() {
  eventfd_write(closing_.get(), 1);
  thread_.join();
  // One that has come is used up: it must not strike the caller now.
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
  }
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

bool Termination::told() const {
  const std::lock_guard lock(mutex_);
  return told_;
}

void Termination::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return told_; });
}

bool Termination::wait_for(std::chrono::milliseconds time) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [this] { return told_; });
}

void Termination::watch() {
  std::array<pollfd, 2> ready{pollfd{signals_.get(), POLLIN, 0}, pollfd{closing_.get(), POLLIN, 0}};
  while (poll(ready.data(), ready.size(), -1) < 0 && errno == EINTR) {
  }
  if (ready[0].revents == 0) return;
  const std::lock_guard lock(mutex_);
  told_ = true;
  if (act_) act_();
  changed_.notify_all();
}

Termination::Action::Action(Termination& owner, std::function<void()> act) : owner_(owner) {
  const std::lock_guard lock(owner_.mutex_);
  if (owner_.told_) act();
  owner_.act_ = std::move(act);
}

Termination::Action::~Action() {
  const std::lock_guard lock(owner_.mutex_);
  owner_.act_ = nullptr;
}

}  // namespace trireme
