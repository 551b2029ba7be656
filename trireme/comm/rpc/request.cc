// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <exception>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/comm/rpc/server.h"
#include "trireme/comm/rpc/server_connection.h"

namespace trireme {

RpcRequest::RpcRequest(std::unique_ptr<detail::RequestState> state) : state_(std::move(state)) {}
RpcRequest::RpcRequest(RpcRequest&& other) noexcept = default;

RpcRequest& RpcRequest::operator=(RpcRequest&& other) noexcept {
  RpcRequest moved(std::move(other));
  std::swap(state_, moved.state_);
  return *this;
}

RpcRequest::~RpcRequest() {
  if (state_ == nullptr) return;
  try {
    reply(kRpcAbandoned);
  } catch (const std::exception& error) {
    log_error("no reply leaves for a dropped request: {}", error.what());
  }
}

std::uint64_t RpcRequest::connection() const { return state_->connection->id(); }
const std::string& RpcRequest::client() const { return state_->connection->client(); }
std::uint32_t RpcRequest::method() const { return state_->head.code; }
const std::string& RpcRequest::header() const { return state_->header; }
std::size_t RpcRequest::reply_room() const { return state_->head.room_bytes; }

std::span<const std::byte> RpcRequest::payload() const {
  const RpcHead& head = state_->head;
  if (!head.payload) return state_->received.span();
  return {state_->payload->data() + head.payload.offset, head.payload_bytes};
}

std::span<std::byte> RpcRequest::reply_space(std::size_t bytes) {
  const RpcHead& head = state_->head;
  if (bytes > head.room_bytes || (!head.room && bytes > kRpcInlinePayloadLimit)) {
    throw_error<ShapeError>(
        "a reply of {} bytes to method {} of {}, which has room for {}, {} through the socket",
        bytes, head.code, client(), head.room_bytes, kRpcInlinePayloadLimit);
  }
  if (head.room) {
    state_->reply_space = {state_->room->data() + head.room.offset, bytes};
  } else {
    state_->reply = AlignedBytes(bytes);
    state_->reply_space = state_->reply.span();
  }
  return state_->reply_space;
}

void RpcRequest::reply(std::uint32_t status, std::string_view header, std::size_t payload_bytes) {
  TRIREME_ASSERT(state_ != nullptr, "a request is answered once");
  if (header.size() > kRpcHeaderLimit || payload_bytes > state_->reply_space.size()) {
    throw_error<ShapeError>(
        "a reply to method {} of {} with a header of {} bytes, {} are allowed, and a payload of "
        "{}, for which {} bytes of space were asked",
        method(), client(), header.size(), kRpcHeaderLimit, payload_bytes,
        state_->reply_space.size());
  }
  RpcHead head;
  head.kind = RpcFrameKind::kReply;
  head.code = status;
  head.call = state_->head.call;
  head.header_bytes = static_cast<std::uint32_t>(header.size());
  head.payload_bytes = payload_bytes;
  if (payload_bytes != 0) head.payload = state_->head.room;
  const std::unique_ptr<detail::RequestState> state = std::exchange(state_, nullptr);
  state->connection->reply(head, header, std::move(state->reply));
}

}  // namespace trireme
