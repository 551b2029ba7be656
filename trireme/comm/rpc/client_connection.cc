// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/client_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <vector>

#include "trireme/base/log.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme::detail {
namespace {

constexpr std::uint64_t kSocket = EventSet::kAlarm + 1;
// A payload below this travels through the socket even where memory is shared: copying a page costs
// less than what the server's cores pay to fetch it, and the look at its mapping, from another
// place than the frame they have just read.
constexpr std::size_t kLeastInPlace = 4096;
// How long the thread waits at most without calls under way.
constexpr std::chrono::milliseconds kIdleTime = std::chrono::minutes(1);
constexpr std::int64_t kBeforeAllCalls = std::numeric_limits<std::int32_t>::max() + std::int64_t{1};

std::uint64_t bytes_of(const std::vector<std::span<const std::byte>>& payload) {
  std::uint64_t bytes = 0;
  for (const std::span<const std::byte> piece : payload) bytes += piece.size();
  return bytes;
}

}  // namespace

ClientConnection::ClientConnection(const RpcClientOptions& options)
    : ClientConnection(options, greet_server(options)) {}

ClientConnection::ClientConnection(const RpcClientOptions& options, Greeted greeted)
    : name_(options.name),
      server_(endpoint_text(options.address, options.port)),
      arena_(options.arena != nullptr ? options.arena->regions() : nullptr),
      shares_memory_(greeted.shares_memory),
      fd_(std::move(greeted.fd)),
      outbox_(fd_.get(),
              [this](bool writable) {
                events_.change(fd_.get(), kSocket, EPOLLIN | (writable ? EPOLLOUT : 0U));
              }),
      wakes_at_(Deadline::Clock::now()) {
  if (!greeted.why_not.empty()) {
    log_warn("{}: all payloads go to {} through the socket, because it cannot use our memory: {}",
             name_, server_, greeted.why_not);
  }
  events_.add(fd_.get(), kSocket, EPOLLIN);
  thread_ = std::thread([this] { run(); });
}

ClientConnection::~ClientConnection() { close(); }

void ClientConnection::close() {
  closing_.store(true);
  events_.ring();
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

// Throws ShapeError.
RpcHead ClientConnection::head_of(const RpcCall& call) const {
  RpcHead head;
  head.kind = RpcFrameKind::kRequest;
  head.code = call.method;
  head.header_bytes = static_cast<std::uint32_t>(call.header.size());
  head.payload_bytes = bytes_of(call.payload);
  head.room_bytes = call.reply_space.size();
  if (shares_memory_) {
    if (call.payload.size() == 1 && head.payload_bytes >= kLeastInPlace) {
      head.payload = arena_->locate(call.payload[0].data(), call.payload[0].size());
    }
    head.room = arena_->locate(call.reply_space.data(), call.reply_space.size());
  }
  if (call.header.size() > kRpcHeaderLimit || head.inline_bytes() > kRpcInlinePayloadLimit) {
    throw_error<ShapeError>(
        "a call of method {} to {} has a header of {} bytes and a payload of {}; through the "
        "socket at most {} and {} go at once: split it",
        call.method, server_, call.header.size(), head.payload_bytes, kRpcHeaderLimit,
        kRpcInlinePayloadLimit);
  }
  return head;
}

void ClientConnection::call(RpcCall call, RpcClient::Done done) {
  RpcHead head = head_of(call);
  const TimePoint deadline = Deadline::after(call.timeout).time_point();
  {
    std::unique_lock lock(mutex_);
    if (ended_.load()) {
      RpcReply reply;
      reply.error = lost(call.method, why_ended_);
      lock.unlock();
      return done(std::move(reply));
    }
    head.call = next_call_++;
    tell_of(head.payload);
    tell_of(head.room);
    OutgoingFrame frame;
    frame.front = encode_head(head) + call.header;
    if (!head.payload) frame.payload = std::move(call.payload);
    frame.priority = call.priority;
    const Outbox::Ticket ticket = outbox_.put(std::move(frame));
    deadlines_.emplace(deadline, head.call);
    calls_.emplace(head.call, Pending{call.method, call.reply_space, head.room, call.timeout,
                                      deadline, ticket, std::move(done)});
    if (deadline < wakes_at_) events_.ring();
  }
  outbox_.send();
}

void ClientConnection::tell_of(const RpcPlace& place) {
  if (!place || told_of_.contains(place.memory)) return;
  std::erase_if(told_of_, [&](std::uint64_t memory) { return !arena_->notice(memory); });
  const std::optional<MemoryNotice> notice = arena_->notice(place.memory);
  if (!notice) {
    throw_error<ShapeError>("memory of a call to {} was freed before the call was made", server_);
  }
  FieldWriter writer;
  encode_notice(writer, *notice);
  RpcHead head;
  head.kind = RpcFrameKind::kMemory;
  head.header_bytes = static_cast<std::uint32_t>(writer.bytes().size());
  OutgoingFrame frame;
  frame.front = encode_head(head) + writer.bytes();
  frame.priority = kBeforeAllCalls;
  outbox_.put(std::move(frame));
  told_of_.insert(place.memory);
}

void ClientConnection::run() {
  std::string why;
  try {
    while (serve()) expire_calls();
    why = closing_.load() ? "the client was closed" : "the connection ended; see the server's log";
  } catch (const std::exception& error) {
    why = error.what();
    if (refusal_.empty()) log_error("{} lets go of the server at {}: {}", name_, server_, why);
  }
  end_calls(refusal_.empty() ? why : refusal_);
}

// False when the connection has ended.
bool ClientConnection::serve() {
  for (const epoll_event& event : events_.wait(time_to_wait())) {
    if (event.data.u64 != kSocket) continue;
    if ((event.events & EPOLLOUT) != 0) outbox_.send(true);
    if ((event.events & ~std::uint32_t{EPOLLOUT}) != 0 &&
        inbox_.read_from(fd_, *this) == IoStatus::kClosed) {
      return false;
    }
  }
  return !closing_.load();
}

std::chrono::milliseconds ClientConnection::time_to_wait() {
  const std::lock_guard lock(mutex_);
  const TimePoint now = Deadline::Clock::now();
  // Without calls it keeps the time it had: the next call then need not wake this thread.
  if (!deadlines_.empty()) {
    wakes_at_ = deadlines_.begin()->first;
  } else if (wakes_at_ <= now) {
    wakes_at_ = now + kIdleTime;
  }
  return std::max(std::chrono::ceil<std::chrono::milliseconds>(wakes_at_ - now),
                  std::chrono::milliseconds(0));
}

ClientConnection::Pending ClientConnection::remove(Calls::iterator call) {
  deadlines_.erase({call->second.deadline, call->first});
  Pending pending = std::move(call->second);
  calls_.erase(call);
  return pending;
}

void ClientConnection::expire_calls() {
  const TimePoint now = Deadline::Clock::now();
  for (;;) {
    Pending call;
    {
      const std::lock_guard lock(mutex_);
      if (deadlines_.empty() || deadlines_.begin()->first > now) return;
      const std::uint64_t number = deadlines_.begin()->second;
      if (number == arriving_) inbox_.drop_payload();
      call = remove(calls_.find(number));
    }
    outbox_.withdraw(call.ticket);
    RpcReply reply;
    reply.error = late(call);
    finish(call, std::move(reply));
  }
}

void ClientConnection::end_calls(const std::string& why) {
  Calls calls;
  {
    const std::lock_guard lock(mutex_);
    ended_.store(true);
    why_ended_ = why;
    calls.swap(calls_);
    deadlines_.clear();
  }
  outbox_.stop();
  // The server hears of it now, not when the last copy of the descriptor goes.
  shutdown(fd_.get(), SHUT_RDWR);
  // In the order in which they were made.
  const std::map<std::uint64_t, Pending> ordered(std::move_iterator(calls.begin()),
                                                 std::move_iterator(calls.end()));
  for (const auto& [number, call] : ordered) {
    RpcReply reply;
    reply.error = lost(call.method, why);
    finish(call, std::move(reply));
  }
}

std::byte* ClientConnection::place_for(const RpcHead& head) {
  arriving_ = head.call;
  const std::lock_guard lock(mutex_);
  const auto call = calls_.find(head.call);
  if (call == calls_.end()) return nullptr;  // it came too late
  const std::span<std::byte> space = call->second.reply_space;
  if (head.payload_bytes > space.size()) {
    throw_error<ProtocolError>("a reply of {} bytes where there is room for {}", head.payload_bytes,
                               space.size());
  }
  return space.data();
}

void ClientConnection::deliver(const RpcHead& head, std::string header) {
  if (head.kind == RpcFrameKind::kReply) return take_reply(head, std::move(header));
  if (head.kind == RpcFrameKind::kRefusal) {
    refusal_ = header;
    throw_error<ProtocolError>("the server ended the connection: {}", header);
  }
  throw_error<ProtocolError>("a frame of kind {} out of turn", static_cast<int>(head.kind));
}

void ClientConnection::take_reply(const RpcHead& head, std::string header) {
  arriving_ = 0;
  Pending call;
  {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(head.call);
    if (found == calls_.end()) {
      if (head.call == 0 || head.call >= next_call_) {
        throw_error<ProtocolError>("a reply to call {}, which was never made", head.call);
      }
      return;  // it came too late
    }
    const Pending& asked = found->second;
    if (head.payload &&
        (head.payload != asked.room || head.payload_bytes > asked.reply_space.size())) {
      throw ProtocolError("a reply in other memory than that of the call");
    }
    call = remove(found);
  }
  RpcReply reply;
  // The caller may use its memory again, so the request must not be leaving any more.
  if (outbox_.withdraw(call.ticket)) {
    reply.error = lost(call.method, "it replied before it had the whole request");
  }
  reply.status = head.code;
  reply.header = std::move(header);
  reply.payload_bytes = head.payload_bytes;
  finish(call, std::move(reply));
}

void ClientConnection::finish(const Pending& call, RpcReply reply) {
  try {
    call.done(std::move(reply));
  } catch (const std::exception& error) {
    log_error("what was to be done with the reply to method {} failed: {}", call.method,
              error.what());
  }
}

std::exception_ptr ClientConnection::lost(std::uint32_t method, const std::string& why) const {
  return std::make_exception_ptr(
      PeerLostError(-1, fmt::format("{} lost the server at {} and gets no reply to method {}: {}",
                                    name_, server_, method, why)));
}

std::exception_ptr ClientConnection::late(const Pending& call) const {
  return std::make_exception_ptr(TimeoutError(fmt::format(
      "the server at {} did not reply to method {} of {} within {:.1f} s; it is alive, "
      "but busy or stuck: see its log",
      server_, call.method, name_, static_cast<double>(call.timeout.count()) / 1000.0)));
}

}  // namespace trireme::detail
