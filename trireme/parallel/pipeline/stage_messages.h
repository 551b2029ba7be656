// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StageMessages: tensors on their way between the stages of a pipeline.
//
// What a stage sends is the same for all micro-batches of a run but for its values: the first
// message says dtypes and shapes, and those after it may be received before anything is known of
// them but that. Sends never block; receives block where the values are asked for.
//
// Each message under way takes a thread (Group), so of those that are alike, kind and stage, only
// the first few are on their way, and the others follow: they are received in the same order.
//
// Internal to PipelineExecutor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "trireme/comm/group.h"

namespace trireme {

// What travels, and from which stage's computation it comes.
enum class MessageKind : std::uint8_t { kActivation, kGradient, kTied };

struct MessageKey {
  MessageKind kind = MessageKind::kActivation;
  int stage = 0;  // that sends
  int micro_batch = 0;
  auto operator<=>(const MessageKey&) const = default;
};

// Not thread-safe. Functions that wait throw CommError as Group does. What has begun and not ended
// when it is destroyed ends the world.
class StageMessages {
 public:
  // group: of the pipeline's ranks, of this one's own.
  explicit StageMessages(std::unique_ptr<Group> group) : group_(std::move(group)) {}

  Group& group() const { return *group_; }
  // A run of so many stages and micro-batches begins. Its shapes are not known yet.
  void begin(int stages, int micro_batches);
  // Ends it: blocks until all that was sent has left.
  void finish();

  // Begins to send. Undefined tensors travel as such, where the first message has them undefined,
  // too. The tensors are the caller's to keep as they are until finish(). Throws ShapeError where
  // dtypes or shapes are not those of the run's first message (names both), or a tensor is not on
  // the CPU.
  void start_send(const MessageKey& key, const std::vector<at::Tensor>& tensors, int to);
  // Begins to receive. Blocks until that of plan::VerifyOptions::max_receives earlier has come.
  void start_receive(const MessageKey& key, int from);
  // Blocks until it is there. Once for each; start_receive() came before.
  std::vector<at::Tensor> receive(const MessageKey& key);
  // Between stages of this rank.
  void hand_over(const MessageKey& key, std::vector<at::Tensor> tensors);

  // Lets go of what has left by now, and sends on.
  void settle();
  // Bytes that this rank has sent to others.
  std::int64_t bytes_sent() const { return group_->bytes_sent(); }

 private:
  // Of one tensor; dtype -1: undefined.
  struct Form {
    std::int64_t dtype = -1;
    std::vector<std::int64_t> sizes;
    bool operator==(const Form&) const = default;
  };
  using Forms = std::vector<Form>;
  using Line = std::pair<MessageKind, int>;  // kind and stage
  struct Outgoing {
    at::Tensor tensor;
    int tag = 0;
  };
  struct Departure {
    int to = 0;
    std::vector<Outgoing> tensors = {};
    std::vector<Work> works = {};  // of those that have begun
    bool begun = false;
    bool has_left() const;
  };
  struct Arrival {
    int from = 0;
    std::vector<at::Tensor> tensors;  // empty until their forms are known
    std::vector<Work> works;
    bool started = false;
  };

  static std::string describe(const Forms& forms);
  void read_header(const Line& line);
  void start_waiting(const Line& line);
  // Begins what may begin, and forgets what has left.
  void send_on(std::deque<Departure>& departures);
  bool holds_sends_back() const;
  bool all_left() const;
  Work* oldest_send();  // that is under way; null: none
  // Waits, and sends on meanwhile.
  void wait(Work& work);
  void wait_for(const MessageKey& key, Arrival& arrival);
  int tag_of(const MessageKey& key, std::size_t tensor) const;
  void start(const MessageKey& key, Arrival& arrival, const Forms& forms);

  int stages_ = 0;
  int micro_batches_ = 0;
  std::map<Line, Forms> sent_, received_;             // of this run
  std::map<Line, std::deque<Departure>> departures_;  // in the order in which they are received
  std::map<MessageKey, Arrival> arrivals_;
  std::deque<MessageKey> receives_;     // begun, the last ones
  std::map<Line, at::Tensor> headers_;  // on their way
  std::map<Line, Work> header_works_;
  std::map<MessageKey, std::vector<at::Tensor>> handed_over_;
  // Last: its destructor waits for what still reads and writes the tensors above.
  std::unique_ptr<Group> group_;
};

}  // namespace trireme
