// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Runs a case of operations.h on one rank of a group, and compares every byte of its memory,
// including some around it.
//
//   RunningOperation running(group, scene);  // a Work is under way now
//   EXPECT_EQ(running.finish(), "");
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/memory_port.h"
#include "tests/support/operations.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme::testing {

// Memory of a rank, from the heap or from allocate_shared(), with some before and behind it.
class RankMemory {
 public:
  RankMemory(Group& group, bool shared, const Bytes& image) : bytes_(image.size()) {
    const std::size_t all = bytes_ + 2 * kMargin;
    if (shared) {
      shared_ = group.allocate_shared(all);
    } else {
      heap_.resize(all);
    }
    std::fill_n(start(), all, kMarginByte);
    std::copy(image.begin(), image.end(), data());
  }
  std::byte* data() { return start() + kMargin; }
  std::size_t size() const { return bytes_; }

  // Empty when the memory is as the image and the margins are as they were.
  std::string compare(const Bytes& image) {
    for (std::size_t i = 0; i < kMargin; ++i) {
      if (start()[i] != kMarginByte) return "byte " + std::to_string(i) + " of the margin before";
      if (data()[bytes_ + i] != kMarginByte)
        return "byte " + std::to_string(i) + " of the margin behind";
    }
    if (std::equal(image.begin(), image.end(), data(), data() + bytes_)) return "";
    const auto at = std::mismatch(image.begin(), image.end(), data()).first - image.begin();
    return "byte " + std::to_string(at) + " of " + std::to_string(bytes_);
  }

 private:
  // Aligned for every dtype, not for a cache line.
  static constexpr std::size_t kMargin = 24;
  static constexpr std::byte kMarginByte{0x5a};
  std::byte* start() {
    return heap_.empty() ? static_cast<std::byte*>(shared_.data()) : heap_.data();
  }

  std::size_t bytes_;
  SharedBuffer shared_;
  Bytes heap_;
};

// Works whose buffers must outlive them, also when something throws.
struct PendingWorks {
  std::vector<Work> works;

  PendingWorks() = default;
  PendingWorks(const PendingWorks&) = delete;
  PendingWorks& operator=(const PendingWorks&) = delete;
  ~PendingWorks() {
    for (Work& work : works) {
      try {
        work.wait();
      } catch (const CommError&) {
        // Whoever waits for it in the test's body is told.
      }
    }
  }
};

class RunningOperation {
 public:
  // The case outlives this. cuda_device: the buffers are those of a device, of fakes/fake_device.h.
  RunningOperation(Group& group, const Case& scene, int cuda_device = kHostMemory)
      : group_(group),
        scene_(scene),
        cuda_device_(cuda_device),
        input_(group, is_shared(), before().input),
        output_(group, is_shared(), before().output) {
    start();
  }
  // Empty when the memory is as it shall be.
  std::string finish() {
    for (Work& work : pending_.works) work.wait();
    const Image& after = scene_.after[index()];
    const std::string input = input_.compare(after.input);
    const std::string output = output_.compare(after.output);
    if (input.empty() && output.empty()) return "";
    return "rank " + std::to_string(group_.rank()) + " of " + group_.name() + ", " +
           describe(operation()) + ": wrong " + (input.empty() ? "output: " : "input: ") + input +
           output;
  }

 private:
  const Operation& operation() const { return scene_.operation; }
  std::size_t index() const { return static_cast<std::size_t>(group_.rank()); }
  const Image& before() const { return scene_.before[index()]; }
  bool is_shared() const {
    return cuda_device_ == kHostMemory && (operation().shared >> group_.rank() & 1) != 0;
  }

  // The whole of a memory, or a part of it.
  Buffer whole(RankMemory& memory) const { return part(memory, 0, memory.size()); }
  Buffer part(RankMemory& memory, std::size_t offset, std::size_t bytes) const {
    std::byte* const at = memory.data() + offset;
    return {cuda_device_ == kHostMemory ? at : on_device(at),
            static_cast<std::int64_t>(bytes / dtype_bytes(operation().dtype)), operation().dtype,
            cuda_device_};
  }
  Buffer own_block(RankMemory& memory) const {
    return part(memory, extent(operation(), 0, index()), extent(operation(), index(), index() + 1));
  }
  std::vector<Buffer> pieces() {
    std::vector<Buffer> all;
    for (std::size_t i = 0; i < operation().counts.size(); ++i) {
      all.push_back(part(output_, extent(operation(), 0, i), extent(operation(), i, i + 1)));
    }
    return all;
  }

  // Either form of one operation.
  template <class Start, class Run>
  void call(const Start& start, const Run& run) {
    if (operation().work) {
      pending_.works.push_back(start());
    } else {
      run();
    }
  }

  void start() {
    switch (operation().kind) {
      case Kind::kAllReduce:
      case Kind::kAllReduceMany:
      case Kind::kReduce:
      case Kind::kReduceScatter:
        return start_reduction();
      case Kind::kAllGather:
      case Kind::kBroadcast:
      case Kind::kBroadcastMany:
      case Kind::kGather:
      case Kind::kScatter:
        return start_move();
      case Kind::kAllToAll:
        return start_all_to_all();
      case Kind::kShift:
        return shift();
      case Kind::kMessages:
        return operation().work ? start_messages() : pass_messages();
      case Kind::kBarrier:
        return call([&] { return group_.start_barrier(); }, [&] { group_.barrier(); });
    }
  }

  void start_reduction() {
    const ReduceOp op = operation().op;
    const Buffer out = whole(output_);
    if (operation().kind == Kind::kAllReduce) {
      call([&] { return group_.start_all_reduce(out, op); }, [&] { group_.all_reduce(out, op); });
    } else if (operation().kind == Kind::kAllReduceMany) {
      const std::vector<Buffer> all = pieces();
      call([&] { return group_.start_all_reduce(all, op); }, [&] { group_.all_reduce(all, op); });
    } else if (operation().kind == Kind::kReduce) {
      const int root = operation().root;
      call([&] { return group_.start_reduce(out, root, op); },
           [&] { group_.reduce(out, root, op); });
    } else {
      const Buffer in = operation().in_place ? out : whole(input_);
      const Buffer block = operation().in_place ? own_block(output_) : out;
      call([&] { return group_.start_reduce_scatter(in, block, op, counts()); },
           [&] { group_.reduce_scatter(in, block, op, counts()); });
    }
  }

  void start_move() {
    const int root = operation().root;
    const Buffer out = whole(output_);
    const Buffer in = operation().in_place ? own_block(output_) : whole(input_);
    if (operation().kind == Kind::kBroadcast) {
      call([&] { return group_.start_broadcast(out, root); }, [&] { group_.broadcast(out, root); });
    } else if (operation().kind == Kind::kBroadcastMany) {
      const std::vector<Buffer> all = pieces();
      call([&] { return group_.start_broadcast(all, root); }, [&] { group_.broadcast(all, root); });
    } else if (operation().kind == Kind::kAllGather) {
      call([&] { return group_.start_all_gather(in, out, counts()); },
           [&] { group_.all_gather(in, out, counts()); });
    } else if (operation().kind == Kind::kGather) {
      call([&] { return group_.start_gather(in, out, root, counts()); },
           [&] { group_.gather(in, out, root, counts()); });
    } else {
      call([&] { return group_.start_scatter(in, out, root, counts()); },
           [&] { group_.scatter(in, out, root, counts()); });
    }
  }

  void start_all_to_all() {
    const Buffer in = whole(input_);
    const Buffer out = whole(output_);
    if (operation().even) {
      return call([&] { return group_.start_all_to_all(in, out); },
                  [&] { group_.all_to_all(in, out); });
    }
    const auto n = static_cast<std::size_t>(group_.size());
    std::vector<std::int64_t> sends;
    std::vector<std::int64_t> receives;
    for (std::size_t peer = 0; peer < n; ++peer) {
      sends.push_back(operation().counts[index() * n + peer]);
      receives.push_back(operation().counts[peer * n + index()]);
    }
    call([&] { return group_.start_all_to_all(in, out, sends, receives); },
         [&] { group_.all_to_all(in, out, sends, receives); });
  }

  // Has no form as Work.
  void shift() {
    const int n = group_.size();
    const int to = (group_.rank() + operation().root) % n;
    const int from = (group_.rank() + n - operation().root) % n;
    group_.send_recv(whole(input_), to, whole(output_), from, 3);
  }

  // This rank's part of a message.
  struct End {
    MessagePlan plan;
    Buffer out;
    Buffer in;
  };
  std::vector<End> ends() {
    std::vector<End> all;
    std::size_t out = 0;
    std::size_t in = 0;
    for (const MessagePlan& plan : operation().messages) {
      const std::size_t bytes =
          static_cast<std::size_t>(plan.count) * dtype_bytes(operation().dtype);
      End end{plan, {}, {}};
      if (plan.from == group_.rank())
        end.out = part(input_, std::exchange(out, out + bytes), bytes);
      if (plan.to == group_.rank()) end.in = part(output_, std::exchange(in, in + bytes), bytes);
      all.push_back(end);
    }
    return all;
  }
  // All at once; receives from the last tag to the first.
  void start_messages() {
    std::vector<End> all = ends();
    for (const End& end : all) {
      if (end.plan.from == group_.rank())
        pending_.works.push_back(group_.start_send(end.out, end.plan.to, end.plan.tag));
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const End& a, const End& b) { return a.plan.tag > b.plan.tag; });
    for (const End& end : all) {
      if (end.plan.to == group_.rank())
        pending_.works.push_back(group_.start_recv(end.in, end.plan.from, end.plan.tag));
    }
  }
  // One after the other, which is an order that cannot lock up.
  void pass_messages() {
    for (const End& end : ends()) {
      if (end.plan.from == group_.rank()) group_.send(end.out, end.plan.to, end.plan.tag);
      if (end.plan.to == group_.rank()) group_.recv(end.in, end.plan.from, end.plan.tag);
    }
  }

  Counts counts() const { return operation().even ? Counts() : Counts(operation().counts); }

  Group& group_;
  const Case& scene_;
  const int cuda_device_;
  RankMemory input_;
  RankMemory output_;
  PendingWorks pending_;
};

}  // namespace trireme::testing
