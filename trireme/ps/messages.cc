// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/messages.h"

#include <bit>
#include <type_traits>

#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

// One description of each message serves both directions: fields(archive, message) names them in
// order, to a Writer or a Reader.
class Writer {
 public:
  void operator()(const std::string& value) { out_.text(value); }
  void operator()(double value) { out_.u64(std::bit_cast<std::uint64_t>(value)); }
  void operator()(bool value) { out_.u8(value ? 1 : 0); }
  template <class Integer>
  requires std::is_integral_v<Integer>
  void operator()(Integer value) {
    out_.u64(static_cast<std::uint64_t>(static_cast<std::int64_t>(value)));
  }
  template <class One>
  void operator()(const std::vector<One>& values) {
    out_.u32(static_cast<std::uint32_t>(values.size()));
    for (const One& value : values) (*this)(value);
  }
  template <class One>
  requires std::is_class_v<One>
  void operator()(const One& value) { fields(*this, value); }
  void operator()(Op::Kind kind) { out_.u8(static_cast<std::uint8_t>(kind)); }
  const std::string& bytes() const { return out_.bytes(); }

 private:
  FieldWriter out_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : in_(bytes) {}
  void operator()(std::string& value) { value = in_.text(); }
  void operator()(double& value) { value = std::bit_cast<double>(in_.u64()); }
  void operator()(bool& value) { value = in_.u8() != 0; }
  template <class Integer>
  requires std::is_integral_v<Integer>
  void operator()(Integer& value) { value = static_cast<Integer>(in_.u64()); }
  // Each element takes at least a byte: nothing is allocated for what is not there.
  template <class One>
  void operator()(std::vector<One>& values) {
    const std::uint32_t count = in_.u32();
    if (count > in_.remaining()) throw_error<ProtocolError>("a list of {} in too few bytes", count);
    values.resize(count);
    for (One& value : values) (*this)(value);
  }
  template <class One>
  requires std::is_class_v<One>
  void operator()(One& value) { fields(*this, value); }
  void operator()(Op::Kind& kind) {
    const std::uint8_t number = in_.u8();
    if (number > static_cast<std::uint8_t>(Op::Kind::kLeave)) {
      throw_error<ProtocolError>("change of kind {}", number);
    }
    kind = static_cast<Op::Kind>(number);
  }
  void finish() const { in_.finish(); }

 private:
  FieldReader in_;
};

// Message is one of ours, constant for a Writer.
template <class Message, class T>
concept Is = std::is_same_v<std::remove_const_t<Message>, T>;

template <class Archive, class... Fields>
void all(Archive& archive, Fields&... values) {
  (archive(values), ...);
}

template <class Archive, class M>
void fields(Archive& a, M& m) {
  if constexpr (Is<M, Member>) {
    all(a, m.worker, m.rank, m.clock);
  } else if constexpr (Is<M, Op>) {
    all(a, m.kind, m.members);
  } else if constexpr (Is<M, ReplicaState>) {
    all(a, m.initialized, m.applied, m.updates, m.step, m.members);
  } else if constexpr (Is<M, RangeView>) {
    all(a, m.primary, m.backup, m.backup_since, m.backup_ready, m.successor, m.successor_since,
        m.handover);
  } else if constexpr (Is<M, ServerView>) {
    all(a, m.id, m.index, m.address, m.port);
  } else if constexpr (Is<M, WorkerView>) {
    all(a, m.id, m.rank);
  } else if constexpr (Is<M, View>) {
    all(a, m.term, m.servers, m.workers, m.ranges, m.failure);
  } else if constexpr (Is<M, Asker>) {
    all(a, m.worker, m.clock);
  } else if constexpr (Is<M, Registration>) {
    all(a, m.is_server, m.index, m.address, m.port);
  } else if constexpr (Is<M, Registered>) {
    all(a, m.id, m.begun, m.heartbeat_ms);
  } else if constexpr (Is<M, Watch>) {
    all(a, m.id, m.known);
  } else if constexpr (Is<M, Ready>) {
    all(a, m.id, m.term, m.range);
  } else if constexpr (Is<M, Announcement>) {
    all(a, m.view, m.finished, m.layout);
  } else if constexpr (Is<M, RangeRequest>) {
    all(a, m.range, m.term, m.asker, m.then_read, m.empty, m.learning_rate, m.gradient_scale,
        m.weight, m.skip, m.assign, m.codec, m.extras, m.lists, m.file, m.digest);
  } else if constexpr (Is<M, RangeReply>) {
    all(a, m.term, m.clock, m.weight, m.extras, m.block_sums, m.committed_scale, m.text);
  } else if constexpr (Is<M, Replication>) {
    all(a, m.range, m.term, m.position, m.op, m.learning_rate, m.gradient_scale, m.empty, m.assign,
        m.committed_scale, m.state, m.part, m.parts);
  } else if constexpr (Is<M, Replicated>) {
    all(a, m.term, m.position);
  } else {
    static_assert(Is<M, ServerReport>);
    all(a, m.updates, m.rows, m.memory_bytes, m.staleness, m.waited_for_us, m.awaited,
        m.ranges_without_values);
  }
}

template <class Message>
std::string encode_message(const Message& message) {
  Writer writer;
  writer(message);
  return writer.bytes();
}

}  // namespace

std::string encode(const Registration& message) { return encode_message(message); }
std::string encode(const Registered& message) { return encode_message(message); }
std::string encode(const Watch& message) { return encode_message(message); }
std::string encode(const Ready& message) { return encode_message(message); }
std::string encode(const Announcement& message) { return encode_message(message); }
std::string encode(const RangeRequest& message) { return encode_message(message); }
std::string encode(const RangeReply& message) { return encode_message(message); }
std::string encode(const Replication& message) { return encode_message(message); }
std::string encode(const Replicated& message) { return encode_message(message); }
std::string encode(const ServerReport& message) { return encode_message(message); }

template <class Message>
Message decode(std::string_view bytes) {
  Reader reader(bytes);
  Message message;
  reader(message);
  reader.finish();
  return message;
}

template Registration decode<Registration>(std::string_view);
template Registered decode<Registered>(std::string_view);
template Watch decode<Watch>(std::string_view);
template Ready decode<Ready>(std::string_view);
template Announcement decode<Announcement>(std::string_view);
template RangeRequest decode<RangeRequest>(std::string_view);
template RangeReply decode<RangeReply>(std::string_view);
template Replication decode<Replication>(std::string_view);
template Replicated decode<Replicated>(std::string_view);
template ServerReport decode<ServerReport>(std::string_view);

}  // namespace trireme::ps
