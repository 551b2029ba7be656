// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/wire.h"

#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/client.h"

namespace trireme {
namespace {

void check_head(const RpcHead& head) {
  if (head.kind < RpcFrameKind::kRequest || head.kind > RpcFrameKind::kRefusal) {
    throw_error<ProtocolError>("a frame of unknown kind {}", static_cast<std::uint32_t>(head.kind));
  }
  if (head.header_bytes > kRpcHeaderLimit) {
    throw_error<ProtocolError>("a header of {} bytes, {} are allowed", head.header_bytes,
                               kRpcHeaderLimit);
  }
  if (head.inline_bytes() > kRpcInlinePayloadLimit) {
    throw_error<ProtocolError>("a payload of {} bytes, {} are allowed through the socket",
                               head.payload_bytes, kRpcInlinePayloadLimit);
  }
  const bool asks = head.kind == RpcFrameKind::kRequest;
  const bool carries = asks || head.kind == RpcFrameKind::kReply;
  if (!carries && (head.payload_bytes != 0 || head.payload)) {
    throw_error<ProtocolError>("a payload of {} bytes in a frame that has none",
                               head.payload_bytes);
  }
  if (!asks && (head.room_bytes != 0 || head.room)) {
    throw_error<ProtocolError>("room for {} bytes in a frame that has none", head.room_bytes);
  }
}

}  // namespace

std::string encode_head(const RpcHead& head) {
  FieldWriter writer;
  writer.u32(static_cast<std::uint32_t>(head.kind))
      .u32(head.code)
      .u64(head.call)
      .u32(head.header_bytes)
      .u64(head.payload_bytes)
      .u64(head.payload.memory)
      .u64(head.payload.offset)
      .u64(head.room_bytes)
      .u64(head.room.memory)
      .u64(head.room.offset);
  return writer.bytes();
}

RpcHead decode_head(std::string_view bytes) {
  FieldReader reader(bytes);
  RpcHead head;
  head.kind = static_cast<RpcFrameKind>(reader.u32());
  head.code = reader.u32();
  head.call = reader.u64();
  head.header_bytes = reader.u32();
  head.payload_bytes = reader.u64();
  head.payload.memory = reader.u64();
  head.payload.offset = reader.u64();
  head.room_bytes = reader.u64();
  head.room.memory = reader.u64();
  head.room.offset = reader.u64();
  reader.finish();
  check_head(head);
  return head;
}

}  // namespace trireme
