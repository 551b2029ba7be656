// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/inbox.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace trireme {
namespace {

// What one call of read_from() reads at most, so that one fast sender does not keep the others
// waiting.
constexpr std::size_t kBudgetBytes = std::size_t{4} << 20;

}  // namespace

std::size_t Inbox::missing() const {
  switch (stage_) {
    case Stage::kHead:
      return kRpcHeadBytes - head_bytes_.size();
    case Stage::kHeader:
      return head_.header_bytes - header_.size();
    case Stage::kPayload:
      return head_.inline_bytes() - received_;
  }
  return 0;
}

void Inbox::feed(std::string_view bytes, FrameSink& sink) {
  while (!bytes.empty()) bytes.remove_prefix(take(bytes, sink));
}

std::size_t Inbox::take(std::string_view bytes, FrameSink& sink) {
  const std::string_view piece = bytes.substr(0, missing());
  switch (stage_) {
    case Stage::kHead:
      head_bytes_ += piece;
      break;
    case Stage::kHeader:
      header_ += piece;
      break;
    case Stage::kPayload:
      if (target_ != nullptr) std::memcpy(target_ + received_, piece.data(), piece.size());
      received_ += piece.size();
      break;
  }
  advance(sink);
  return piece.size();
}

// Passes the stages that are complete.
void Inbox::advance(FrameSink& sink) {
  if (missing() != 0) return;
  if (stage_ == Stage::kHead) {
    head_ = decode_head(head_bytes_);
    stage_ = Stage::kHeader;
  }
  if (stage_ == Stage::kHeader && missing() == 0) {
    target_ = head_.inline_bytes() != 0 ? sink.place_for(head_) : nullptr;
    stage_ = Stage::kPayload;
  }
  if (stage_ == Stage::kPayload && missing() == 0) {
    stage_ = Stage::kHead;
    head_bytes_.clear();
    received_ = 0;
    sink.deliver(head_, std::exchange(header_, {}));
  }
}

IoStatus Inbox::read_from(const FileDescriptor& fd, FrameSink& sink) {
  std::size_t budget = kBudgetBytes;
  while (budget > 0) {
    // The rest of the payload, and what comes behind it, in one system call.
    const bool direct = stage_ == Stage::kPayload && target_ != nullptr;
    const std::size_t wanted = direct ? std::min(missing(), budget) : 0;
    std::array<iovec, 2> pieces{
        {{direct ? target_ + received_ : nullptr, wanted}, {staging_.data(), staging_.size()}}};
    // Behind a payload that the budget cuts comes its rest.
    const bool whole = wanted == (direct ? missing() : 0);
    msghdr message{};
    message.msg_iov = pieces.data() + (direct ? 0 : 1);
    message.msg_iovlen = direct && whole ? 2 : 1;
    const ssize_t n = recvmsg(fd.get(), &message, MSG_DONTWAIT);
    if (n == 0) return IoStatus::kClosed;
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? IoStatus::kOk : IoStatus::kClosed;
    }
    const auto bytes = static_cast<std::size_t>(n);
    const std::size_t placed = std::min(bytes, wanted);
    received_ += placed;
    if (placed > 0) advance(sink);
    feed({staging_.data(), bytes - placed}, sink);
    budget -= std::min(budget, bytes);
    if (bytes < wanted + (direct && !whole ? 0 : staging_.size())) return IoStatus::kOk;
  }
  return IoStatus::kOk;
}

}  // namespace trireme
