// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StageMessages: tensors on their way between the stages of a pipeline.
//
// What a stage sends is the same for all micro-batches of a run but for its values: the first
// message says dtypes and shapes, and those after it may be received before anything is known of
// them but that. Sends never block; receives block where the values are asked for.
//
// Internal to PipelineExecutor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
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

// Not thread-safe. Functions that wait throw CommError as Group does.
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
  // Begins to receive.
  void start_receive(const MessageKey& key, int from);
  // Blocks until it is there. Once for each; start_receive() came before.
  std::vector<at::Tensor> receive(const MessageKey& key);
  // Between stages of this rank.
  void hand_over(const MessageKey& key, std::vector<at::Tensor> tensors);
  // Whether receive() would return at once. Never blocks.
  bool has_come(const MessageKey& key);

  // Lets go of what has left by now.
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
  struct Departure {
    std::vector<at::Tensor> tensors;
    std::vector<Work> works;
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
  int tag_of(const MessageKey& key, std::size_t tensor) const;
  void start(const MessageKey& key, Arrival& arrival, const Forms& forms);

  std::unique_ptr<Group> group_;
  int stages_ = 0;
  int micro_batches_ = 0;
  std::map<Line, Forms> sent_, received_;  // of this run
  std::vector<Departure> departures_;
  std::map<MessageKey, Arrival> arrivals_;
  std::map<Line, at::Tensor> headers_;  // on their way
  std::map<Line, Work> header_works_;
  std::map<MessageKey, std::vector<at::Tensor>> handed_over_;
};

}  // namespace trireme
