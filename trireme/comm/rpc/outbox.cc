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
// the others' large ones, and the I/O thread comes to read. To a peer that reads meanwhile one
// system call would move any amount.
constexpr std::size_t kBudgetBytes = std::size_t{1} << 20;
// Of one system call; a frame of more pieces takes several.
constexpr std::size_t kPieces = 256;

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

std::span<const std::byte> Outbox::Current::piece_at(std::size_t number) const {
  return number == 0 ? std::as_bytes(std::span(frame.front)) : frame.payload[number - 1];
}

// Past bytes that were sent, and pieces without any.
void Outbox::Current::advance(std::size_t bytes) {
  offset += bytes;
  while (!done() && offset >= piece_at(piece).size()) offset -= piece_at(piece++).size();
}

Outbox::Sent Outbox::send_some(std::size_t& budget) {
  std::array<iovec, kPieces> pieces;
  while (!current_->done()) {
    if (budget == 0) return Sent::kSome;
    std::size_t left = budget;
    std::size_t offset = current_->offset;
    msghdr message{};
    message.msg_iov = pieces.data();
    for (std::size_t piece = current_->piece; left > 0 && piece < current_->pieces(); ++piece) {
      if (message.msg_iovlen == kPieces) break;
      const std::span<const std::byte> rest = current_->piece_at(piece).subspan(offset);
      auto* data = const_cast<std::byte*>(rest.data());
      pieces[message.msg_iovlen++] = {data, std::min(rest.size(), left)};
      left -= std::min(rest.size(), left);
      offset = 0;
    }
    const ssize_t n = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      current_->advance(static_cast<std::size_t>(n));
      budget -= static_cast<std::size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Sent::kSome;
    } else if (errno != EINTR) {
      return Sent::kBroken;
    }
  }
  return Sent::kAll;
}

bool Outbox::withdraw(const Ticket& ticket) {
  std::unique_lock lock(mutex_);
  if (queue_.erase(ticket) > 0) return true;
  if (!current_ || current_->ticket != ticket) return false;
  idle_.wait(lock, [&] { return !sending_ || !current_ || current_->ticket != ticket; });
  if (!current_ || current_->ticket != ticket) return false;
  if (current_->piece == 0 && current_->offset == 0) {
    current_.reset();
  } else {
    keep_payload();
  }
  return true;
}

// The caller's memory is the caller's again. The pieces stay apart, so that the place in them is
// still right.
void Outbox::keep_payload() {
  OutgoingFrame& frame = current_->frame;
  std::size_t bytes = 0;
  for (const std::span<const std::byte> piece : frame.payload) bytes += piece.size();
  AlignedBytes copy(bytes);
  std::byte* to = copy.data();
  for (std::span<const std::byte>& piece : frame.payload) {
    std::byte* const first = to;
    to = std::copy(piece.begin(), piece.end(), to);
    piece = {first, piece.size()};
  }
  frame.owned = std::move(copy);
}

void Outbox::stop() {
  std::unique_lock lock(mutex_);
  stopped_ = true;
  idle_.wait(lock, [&] { return !sending_; });
  queue_.clear();
  current_.reset();
}

}  // namespace trireme
