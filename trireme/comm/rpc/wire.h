// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The bytes between client and server once they trust one another (greeting.h). Pure: no sockets
// here.
//
// A frame is a head of kRpcHeadBytes, then the header, then the payload unless that lies in memory
// that both ends map. Integers are little-endian. The frames:
//
//   request  client -> server  code: the method     room: how much payload the reply may have, and
//                                                   where it goes if that is shared memory
//   reply    server -> client  code: the status     payload.memory: that of the request's room when
//                                                   the payload was written there
//   memory   client -> server  header: a notice (memory.h) of memory that later requests name
//   refusal  server -> client  header: why the connection ends now
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

// Of everything after the handshake.
constexpr std::uint32_t kRpcVersion = 1;

enum class RpcFrameKind : std::uint32_t { kRequest = 1, kReply, kMemory, kRefusal };

// In memory that the client has told the server of.
struct RpcPlace {
  std::uint64_t memory = 0;  // 0: in none
  std::uint64_t offset = 0;  // bytes
  explicit operator bool() const { return memory != 0; }
  bool operator==(const RpcPlace&) const = default;
};

struct RpcHead {
  RpcFrameKind kind = RpcFrameKind::kRequest;
  std::uint32_t code = 0;
  std::uint64_t call = 0;  // the client's number, which the reply repeats
  std::uint32_t header_bytes = 0;
  std::uint64_t payload_bytes = 0;
  RpcPlace payload;
  std::uint64_t room_bytes = 0;
  RpcPlace room;

  // Of the payload that follows in the frame.
  std::size_t inline_bytes() const { return payload ? 0 : payload_bytes; }
  bool operator==(const RpcHead&) const = default;
};

constexpr std::size_t kRpcHeadBytes = 68;

// The head alone; the header goes behind it.
std::string encode_head(const RpcHead& head);
// bytes are kRpcHeadBytes. Throws ProtocolError: an unknown kind, sizes over the limits of
// client.h, a payload or a room where the kind has none.
RpcHead decode_head(std::string_view bytes);

}  // namespace trireme
