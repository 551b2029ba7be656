// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/outbox.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace trireme {
namespace {

// What one call of send() moves at most, so that a thread that has put a small frame does not send
// the others' large ones, and the I/O thread comes to read. A socket takes about as much at once.
constexpr std::size_t kBudgetBytes = std::size_t{1} << 20;
// Of one system call; a frame of more pieces takes several.
constexpr std::size_t kPieces = 64;

// The pieces of a frame that are left after the first `sent` bytes, as many as fit.
std::size_t rest_of(const OutgoingFrame& frame, std::size_t sent,
                    std::array<iovec, kPieces>& pieces) {
  std::size_t count = 0;
  const auto add = [&](const void* data, std::size_t bytes) {
    const std::size_t skipped = std::min(sent, bytes);
    sent -= skipped;
    if (skipped == bytes || count == pieces.size()) return;
    auto* first = static_cast<char*>(const_cast<void*>(data)) + skipped;
    pieces[count++] = {first, bytes - skipped};
  };
  add(frame.front.data(), frame.front.size());
  for (const std::span<const std::byte> piece : frame.payload) add(piece.data(), piece.size());
  return count;
}

}  // namespace

Outbox::Ticket Outbox::put(OutgoingFrame frame) {
  const std::lock_guard lock(mutex_);
  const Ticket ticket{-frame.priority, next_++};
  if (!stopped_) queue_.emplace(ticket, std::move(frame));
  return ticket;
}

void Outbox::send(bool writable) {
  std::unique_lock lock(mutex_);
  if (stopped_ || sending_ || (watching_ && !writable)) return;
  drain(lock);
}

// Sends outside of the lock.
void Outbox::drain(std::unique_lock<std::mutex>& lock) {
  sending_ = true;
  std::size_t budget = kBudgetBytes;
  Sent sent = Sent::kAll;
  while (sent == Sent::kAll && !stopped_) {
    if (!current_) {
      if (queue_.empty()) break;
      auto first = queue_.extract(queue_.begin());
      current_.emplace(Current{first.key(), std::move(first.mapped())});
    }
    lock.unlock();
    sent = send_some(budget);
    lock.lock();
    if (sent == Sent::kAll) current_.reset();
  }
  sending_ = false;
  if (sent == Sent::kBroken) {
    // Nothing more leaves; the I/O thread sees the end and tells why.
    stopped_ = true;
    shutdown(fd_, SHUT_RDWR);
  }
  const bool left = sent == Sent::kSome;
  if (!stopped_ && left != watching_) watch_(watching_ = left);
  idle_.notify_all();
}

Outbox::Sent Outbox::send_some(std::size_t& budget) {
  std::array<iovec, kPieces> pieces;
  for (;;) {
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = rest_of(current_->frame, current_->sent, pieces);
    if (message.msg_iovlen == 0) return Sent::kAll;
    if (budget == 0) return Sent::kSome;
    const ssize_t n = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      current_->sent += static_cast<std::size_t>(n);
      budget -= std::min(budget, static_cast<std::size_t>(n));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Sent::kSome;
    } else if (errno != EINTR) {
      return Sent::kBroken;
    }
  }
}

bool Outbox::withdraw(const Ticket& ticket) {
  std::unique_lock lock(mutex_);
  if (queue_.erase(ticket) > 0) return true;
  if (!current_ || current_->ticket != ticket) return false;
  idle_.wait(lock, [&] { return !sending_ || !current_ || current_->ticket != ticket; });
  if (!current_ || current_->ticket != ticket) return false;
  if (current_->sent == 0) {
    current_.reset();
  } else {
    keep_payload();
  }
  return true;
}

// The caller's memory is the caller's again.
void Outbox::keep_payload() {
  OutgoingFrame& frame = current_->frame;
  std::size_t bytes = 0;
  for (const std::span<const std::byte> piece : frame.payload) bytes += piece.size();
  AlignedBytes copy(bytes);
  std::byte* to = copy.data();
  for (const std::span<const std::byte> piece : frame.payload) {
    to = std::copy(piece.begin(), piece.end(), to);
  }
  frame.owned = std::move(copy);
  frame.payload = {frame.owned.span()};
}

void Outbox::stop() {
  std::unique_lock lock(mutex_);
  stopped_ = true;
  idle_.wait(lock, [&] { return !sending_; });
  queue_.clear();
  current_.reset();
}

}  // namespace trireme
