// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/server_connection.h"

#include <sys/socket.h>

#include <utility>

#include "trireme/base/log.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::detail {
namespace {

// Of one client at a time; an arena is made for few large ones. Each is a mapping of this process,
// of which Linux allows 65530.
constexpr std::size_t kMostMemories = 1024;

}  // namespace

ServerConnection::ServerConnection(std::uint64_t id, std::string client, FileDescriptor fd,
                                   std::function<void(bool)> watch)
    : id_(id),
      client_(std::move(client)),
      fd_(std::move(fd)),
      outbox_(fd_.get(), std::move(watch)) {}

IoStatus ServerConnection::receive(const std::function<void(RpcRequest)>& on_request) {
  on_request_ = &on_request;
  return inbox_.read_from(fd_, *this);
}

void ServerConnection::close(const std::string& why) {
  if (!why.empty()) {
    RpcHead head;
    head.kind = RpcFrameKind::kRefusal;
    head.header_bytes = static_cast<std::uint32_t>(why.size());
    OutgoingFrame frame;
    frame.front = encode_head(head) + why;
    outbox_.put(std::move(frame));
    outbox_.send();
  }
  outbox_.stop();
  // Ends it also where a forked process holds a copy of the descriptor.
  shutdown(fd_.get(), SHUT_RDWR);
  fd_ = FileDescriptor();
}

void ServerConnection::reply(const RpcHead& head, std::string_view header, AlignedBytes payload) {
  OutgoingFrame frame;
  frame.front = encode_head(head);
  frame.front += header;
  frame.owned = std::move(payload);
  if (head.inline_bytes() != 0) {
    frame.payload = {frame.owned.span().first(head.payload_bytes)};
  }
  outbox_.put(std::move(frame));
  outbox_.send();
}

std::byte* ServerConnection::place_for(const RpcHead& head) {
  arriving_ = AlignedBytes(head.inline_bytes());
  return arriving_.data();
}

void ServerConnection::deliver(const RpcHead& head, std::string header) {
  if (head.kind == RpcFrameKind::kMemory) return map_memory(header);
  if (head.kind != RpcFrameKind::kRequest) {
    throw_error<ProtocolError>("a frame of kind {} out of turn", static_cast<int>(head.kind));
  }
  auto state = std::make_unique<RequestState>();
  state->connection = shared_from_this();
  state->head = head;
  state->header = std::move(header);
  state->received = std::exchange(arriving_, {});
  state->payload = find(head.payload, head.payload_bytes);
  state->room = find(head.room, head.room_bytes);
  try {
    (*on_request_)(RpcRequest(std::move(state)));
  } catch (const std::exception& error) {
    log_error("a request of {} for method {} was dropped: {}", client_, head.code, error.what());
  }
}

void ServerConnection::map_memory(std::string_view bytes) {
  FieldReader reader(bytes);
  const MemoryNotice notice = decode_notice(reader);
  reader.finish();
  std::erase_if(memories_, [](const auto& entry) { return entry.second->freed(); });
  if (memories_.size() >= kMostMemories) {
    throw_error<ProtocolError>("more than {} memories", kMostMemories);
  }
  const Memory memory = std::make_shared<ArenaMemory>(ArenaMemory::open(notice));
  if (!memories_.emplace(notice.number, memory).second) {
    throw_error<ProtocolError>("memory {} twice", notice.number);
  }
}

// Null for no place.
ServerConnection::Memory ServerConnection::find(const RpcPlace& place, std::uint64_t bytes) const {
  if (!place) return nullptr;
  const auto found = memories_.find(place.memory);
  if (found == memories_.end()) throw_error<ProtocolError>("unknown memory {}", place.memory);
  const std::size_t size = found->second->bytes();
  if (place.offset > size || bytes > size - place.offset) {
    throw_error<ProtocolError>("{} bytes at {} of memory {}, which has {}", bytes, place.offset,
                               place.memory, size);
  }
  return found->second;
}

}  // namespace trireme::detail
