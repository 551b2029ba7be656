// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What stands between a socket and comm/rpc, each as a function of arbitrary bytes; see targets.h.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/fuzz/targets.h"
#include "trireme/comm/rpc/arena.h"
#include "trireme/comm/rpc/arena_regions.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/comm/rpc/greeting.h"
#include "trireme/comm/rpc/inbox.h"
#include "trireme/comm/rpc/memory.h"
#include "trireme/comm/rpc/server_connection.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme::fuzz {

// Frames come out as they stand in the bytes, whatever the pieces, and their payloads go where they
// are placed.
inline void rpc_frames(std::string_view bytes) {
  struct Sink : FrameSink {
    std::byte* place_for(const RpcHead& head) override {
      promise(head.inline_bytes() != 0 && head.inline_bytes() <= kRpcInlinePayloadLimit,
              "a payload over the limit");
      // Of what a fuzzer sends, more than this never arrives.
      payload.assign(std::min<std::size_t>(head.inline_bytes(), 1 << 16), '\0');
      const bool whole = payload.size() == head.inline_bytes();
      return whole ? reinterpret_cast<std::byte*>(payload.data()) : nullptr;
    }
    void deliver(const RpcHead& head, std::string header) override {
      promise(header.size() == head.header_bytes, "a header of another size");
      out += encode_head(head) + header + std::exchange(payload, {});
    }
    std::string payload;
    std::string out;
  } sink;
  Supply supply(bytes);
  const std::size_t piece = 1 + supply.number();
  Inbox inbox;
  std::string fed;
  try {
    while (!supply.empty()) {
      const std::string_view next = supply.piece(piece);
      fed += next;
      inbox.feed(next, sink);
    }
  } catch (const ProtocolError&) {
  }
  promise(fed.starts_with(sink.out), "a frame that was not sent");
}

inline void rpc_notice(std::string_view bytes) {
  FieldReader reader(bytes);
  try {
    const MemoryNotice notice = decode_notice(reader);
    FieldWriter writer;
    encode_notice(writer, notice);
    promise(bytes.starts_with(writer.bytes()), "another notice than was sent");
  } catch (const ProtocolError&) {
  }
}

inline void rpc_introduction(std::string_view bytes) {
  try {
    promise(encode_introduction(decode_introduction(bytes)) == bytes,
            "another introduction than was sent");
  } catch (const ProtocolError&) {
  }
}

// A client's frames at a server: raw bytes, mixed with notices of real memory and with requests
// that name places in it. Each request is answered; whatever lies outside is refused.
inline void rpc_server(std::string_view bytes) {
  constexpr std::size_t kBytes = 5000;
  int ends[2];
  promise(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0,
          "no socket pair");
  const FileDescriptor client(ends[0]);
  const auto connection = std::make_shared<detail::ServerConnection>(
      2, "a client", FileDescriptor(ends[1]), [](bool) {});
  RpcArena arena;
  const SharedBuffer memory = arena.allocate(kBytes);
  const auto& regions = *arena.regions();
  const std::uint64_t number = regions.locate(memory.data(), 1).memory;
  const auto answer = [&](RpcRequest request) {
    unsigned sum = 0;
    for (const std::byte byte : request.payload()) sum += static_cast<unsigned>(byte);
    const auto space = request.reply_space(std::min<std::size_t>(request.reply_room(), kBytes));
    std::fill(space.begin(), space.end(), static_cast<std::byte>(sum));
    request.reply(sum, request.header(), space.size());
  };
  Supply supply(bytes);
  try {
    while (!supply.empty()) {
      std::string out;
      RpcHead head;
      switch (supply.number() % 3) {
        case 0:
          out = supply.piece(supply.number());
          break;
        case 1: {
          FieldWriter writer;
          encode_notice(writer, *regions.notice(number));
          head.kind = RpcFrameKind::kMemory;
          head.header_bytes = static_cast<std::uint32_t>(writer.bytes().size());
          out = encode_head(head) + writer.bytes();
          break;
        }
        default: {
          // Near the memory's ends, or far beyond.
          const auto place = [&]() -> RpcPlace {
            const unsigned which = supply.number();
            const std::uint64_t offset = std::uint64_t{supply.number()} << (which / 4);
            return {which % 4 == 0 ? 0 : number + which % 4 / 3, offset};
          };
          head.payload = place();
          if (head.payload) head.payload_bytes = std::uint64_t{supply.number()} * 25;
          head.room = place();
          head.room_bytes = std::uint64_t{supply.number()} * 25;
          out = encode_head(head);
        }
      }
      write_available(client, out);
      if (connection->receive(answer) == IoStatus::kClosed) break;
      std::string replies;
      read_available(client, replies);
    }
  } catch (const CommError&) {
  } catch (const std::bad_alloc&) {
  }
  connection->close("the end");
}

}  // namespace trireme::fuzz
