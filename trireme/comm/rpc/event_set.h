// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// An epoll set with an alarm that any thread can ring: what an I/O thread waits on.
#pragma once

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstdint>
#include <span>

#include "trireme/base/error.h"
#include "trireme/base/file_descriptor.h"

namespace trireme {

// wait() is for one thread; any thread may call the others.
class EventSet {
 public:
  static constexpr std::uint64_t kAlarm = 0;  // the key of ring()

  // Throws CommError when no descriptor is left.
  EventSet() : set_(epoll_create1(EPOLL_CLOEXEC)), alarm_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!set_ || !alarm_) throw_error<CommError>("no file descriptor left; see ulimit -n");
    add(alarm_.get(), kAlarm, EPOLLIN);
  }

  void add(int fd, std::uint64_t key, std::uint32_t events) {
    control(EPOLL_CTL_ADD, fd, key, events);
  }
  void change(int fd, std::uint64_t key, std::uint32_t events) {
    control(EPOLL_CTL_MOD, fd, key, events);
  }
  void remove(int fd) { control(EPOLL_CTL_DEL, fd, 0, 0); }
  // Makes wait() return.
  void ring() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t ignored = ::write(alarm_.get(), &one, sizeof(one));
  }

  // What has happened, at least one thing unless the time is over. Valid until the next call.
  std::span<const epoll_event> wait(std::chrono::milliseconds time) {
    const auto most = static_cast<int>(std::min<std::int64_t>(time.count(), INT_MAX));
    const int n = epoll_wait(set_.get(), events_.data(), static_cast<int>(events_.size()), most);
    const std::span<const epoll_event> events(events_.data(),
                                              static_cast<std::size_t>(std::max(n, 0)));
    for (const epoll_event& event : events) {
      std::uint64_t count = 0;
      if (event.data.u64 == kAlarm) {
        [[maybe_unused]] const ssize_t ignored = ::read(alarm_.get(), &count, sizeof(count));
      }
    }
    return events;
  }

 private:
  void control(int operation, int fd, std::uint64_t key, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = key;
    epoll_ctl(set_.get(), operation, fd, &event);
  }

  FileDescriptor set_;
  FileDescriptor alarm_;
  std::array<epoll_event, 64> events_{};
};

}  // namespace trireme
