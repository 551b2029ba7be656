// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/message/mail.h"

#include "trireme/comm/two_halves.h"

namespace trireme {
namespace {

// What travels first.
struct Header {
  std::int64_t count = 0;
  DType dtype = DType::kF32;
  std::byte unused[7] = {};
  std::byte data[kSmallBytes];
};

Lane lane_of(const MessageKey& key) { return {Lane::Purpose::kMessage, key.tag, key.sequence}; }

// One end of a message. Its memory outlives the flights that use it.
class Sender {
 public:
  Sender(MessageState& state, const MessageKey& key, const ConstBuffer& data)
      : state_(state), key_(key), data_(data) {}

  void start_header(Flight& flight) {
    header_.count = data_.count;
    header_.dtype = data_.dtype;
    std::size_t size = offsetof(Header, data);
    if (state_.is_small(data_.bytes())) {
      state_.memory->copy(header_.data, data_.data, data_.bytes());
      state_.count_sent(key_.peer, data_.bytes());
      size += data_.bytes();
    }
    flight.send(key_.peer, lane_of(key_), &header_, size);
  }
  bool has_more() const { return !state_.is_small(data_.bytes()); }
  void start_rest(Flight& flight) {
    state_.send(flight, key_.peer, lane_of(key_),
                {static_cast<const std::byte*>(data_.data), data_.bytes()});
  }

 private:
  MessageState& state_;
  const MessageKey key_;
  const ConstBuffer data_;
  Header header_;
};

class Receiver {
 public:
  Receiver(MessageState& state, const MessageKey& key, const Buffer& data)
      : state_(state), key_(key), data_(data) {}

  void start_header(Flight& flight) {
    flight.receive(key_.peer, lane_of(key_), &header_, sizeof(header_));
  }
  void take_header() {
    if (header_.count != data_.count || header_.dtype != data_.dtype) {
      message_mismatch_error(state_.scope, key_, false, data_, header_.count, header_.dtype);
    }
    if (!has_more()) state_.memory->copy(data_.data, header_.data, data_.bytes());
  }
  bool has_more() const { return !state_.is_small(data_.bytes()); }
  void start_rest(Flight& flight) {
    flight.receive(key_.peer, lane_of(key_), data_.data, data_.bytes());
  }

 private:
  MessageState& state_;
  const MessageKey key_;
  const Buffer data_;
  Header header_;
};

}  // namespace

void send_message(MessageState& state, const MessageKey& key, const ConstBuffer& data,
                  const Deadline& deadline) {
  const OperationName name(key, true, data.count, data.dtype);
  Sender sender(state, key, data);
  const std::unique_ptr<Flight> header = state.meeting->make_flight();
  sender.start_header(*header);
  header->wait(name, deadline);
  if (!sender.has_more()) return;
  const std::unique_ptr<Flight> rest = state.payload->make_flight();
  sender.start_rest(*rest);
  rest->wait(name, deadline);
}

void receive_message(MessageState& state, const MessageKey& key, const Buffer& data,
                     const Deadline& deadline) {
  const OperationName name(key, false, data.count, data.dtype);
  Receiver receiver(state, key, data);
  const std::unique_ptr<Flight> header = state.meeting->make_flight();
  receiver.start_header(*header);
  header->wait(name, deadline);
  receiver.take_header();
  if (!receiver.has_more()) return;
  const std::unique_ptr<Flight> rest = state.payload->make_flight();
  receiver.start_rest(*rest);
  rest->wait(name, deadline);
}

void exchange_messages(MessageState& state, const MessageKey& out_key, const ConstBuffer& out,
                       const MessageKey& in_key, const Buffer& in, const Deadline& deadline) {
  if (!state.is_small(in.bytes())) {
    // It comes in two parts and needs this rank between them.
    return run_two_halves(
        *state.scope.world, [&] { send_message(state, out_key, out, deadline); },
        [&] { receive_message(state, in_key, in, deadline); });
  }
  const OperationName name(in_key, false, in.count, in.dtype);
  Sender sender(state, out_key, out);
  Receiver receiver(state, in_key, in);
  const std::unique_ptr<Flight> headers = state.meeting->make_flight();
  receiver.start_header(*headers);
  sender.start_header(*headers);
  headers->wait(name, deadline);
  receiver.take_header();
  if (!sender.has_more()) return;
  const std::unique_ptr<Flight> rest = state.payload->make_flight();
  sender.start_rest(*rest);
  rest->wait(name, deadline);
}

}  // namespace trireme
