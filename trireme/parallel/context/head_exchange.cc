// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/context/head_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/context/token_parts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme::detail {
namespace {

std::int64_t num_heads(const std::vector<HeadRange>& heads) { return heads.back().end; }

bool are_shared(const std::vector<HeadRange>& heads) {
  for (std::size_t i = 0; i + 1 < heads.size(); ++i) {
    if (heads[i + 1].begin < heads[i].end) return true;
  }
  return false;
}

// One rank's part of a message: for each tensor [B, T, H, D], one after the other.
class Block {
 public:
  Block(at::Tensor memory, const at::Tensor& like) : memory_(std::move(memory)), like_(like) {}

  // Of the next tensor.
  at::Tensor take(std::int64_t tokens, std::int64_t heads) {
    const std::int64_t B = like_.size(0), D = like_.size(3), count = B * tokens * heads * D;
    const at::Tensor taken = memory_.narrow(0, at_, count).view({B, tokens, heads, D});
    at_ += count;
    return taken;
  }

 private:
  const at::Tensor memory_;
  const at::Tensor& like_;
  std::int64_t at_ = 0;
};

// Messages between all ranks: blocks of elements in rank order.
class Messages {
 public:
  // tokens(rank), heads(tensor, rank): of what goes to or comes from a rank.
  template <class Tokens, class Heads>
  Messages(const std::vector<MovingHeads>& moving, int ranks, Tokens tokens, Heads heads) {
    const at::Tensor& like = moving[0].x;
    const MemoryScope scope(MemoryCategory::kWorkspace);
    std::int64_t total = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      std::int64_t count = 0;
      for (const MovingHeads& each : moving) count += tokens(rank) * heads(each, rank);
      counts_.push_back(count * like.size(0) * like.size(3));
      total += counts_.back();
    }
    memory_ = at::empty({total}, like.options().requires_grad(false));
    std::int64_t begin = 0;
    for (const std::int64_t count : counts_) {
      blocks_.emplace_back(memory_.narrow(0, begin, count), like);
      begin += count;
    }
  }

  Block& block(int rank) { return blocks_[static_cast<std::size_t>(rank)]; }
  const at::Tensor& memory() const { return memory_; }
  const std::vector<std::int64_t>& counts() const { return counts_; }

 private:
  at::Tensor memory_;
  std::vector<std::int64_t> counts_;
  std::vector<Block> blocks_;
};

// Both ways use the same two shapes of blocks: `by_tokens` hold a rank's own tokens for each other
// rank's heads, `by_heads` its own heads of each other rank's tokens.
struct Exchange {
  Exchange(const std::vector<MovingHeads>& moving, std::int64_t whole, const Group& group)
      : ranks(group.size()),
        rank(group.rank()),
        tokens(whole),
        by_tokens(
            moving, ranks, [&](int) { return num_tokens(parts_of(rank)); },
            [](const MovingHeads& each, int other) { return range_of(each, other).size(); }),
        by_heads(
            moving, ranks, [&](int other) { return num_tokens(parts_of(other)); },
            [&](const MovingHeads& each, int) { return range_of(each, rank).size(); }) {}

  TokenParts parts_of(int of) const { return token_parts(tokens, of, ranks); }
  static HeadRange range_of(const MovingHeads& each, int of) {
    return each.heads[static_cast<std::size_t>(of)];
  }

  int ranks;
  int rank;
  std::int64_t tokens;
  Messages by_tokens;
  Messages by_heads;
};

// f(block, tokens of all ranks) for both ranges of a rank's tokens.
template <class F>
void each_range(const at::Tensor& block_BTHD, const at::Tensor& whole_BTHD, const TokenParts& parts,
                F f) {
  std::int64_t begin = 0;
  for (const TokenRange& range : parts) {
    f(block_BTHD.narrow(1, begin, range.size()), whole_BTHD.narrow(1, range.begin, range.size()));
    begin += range.size();
  }
}

void move(Group& group, const Messages& out, const Messages& in) {
  const TimedPart part("context parallel");
  group.all_to_all(buffer_of_tensor(out.memory()), buffer_of_tensor(in.memory()), out.counts(),
                   in.counts());
}

}  // namespace

HeadCut cut_heads(std::int64_t heads, std::int64_t kv_heads, int ranks) {
  if (heads < ranks) {
    throw_error<ConfigError>(
        "attention across ranks by heads: {} heads for {} ranks; at most {} ranks, or the method "
        "ring, which cuts no heads",
        heads, ranks, heads);
  }
  const std::int64_t group = heads / kv_heads;
  HeadCut cut;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    const HeadRange own{heads * rank / ranks, heads * (rank + 1) / ranks};
    cut.heads.push_back(own);
    cut.kv_heads.push_back({own.begin / group, (own.end - 1) / group + 1});
  }
  return cut;
}

std::vector<at::Tensor> tokens_to_heads(const std::vector<MovingHeads>& moving, std::int64_t tokens,
                                        Group& group) {
  Exchange exchange(moving, tokens, group);
  for (int other = 0; other < group.size(); ++other) {
    for (const MovingHeads& each : moving) {
      const HeadRange range = Exchange::range_of(each, other);
      exchange.by_tokens.block(other)
          .take(each.x.size(1), range.size())
          .copy_(each.x.narrow(2, range.begin, range.size()));
    }
  }
  move(group, exchange.by_tokens, exchange.by_heads);
  std::vector<at::Tensor> results;
  for (const MovingHeads& each : moving) {
    const std::int64_t heads = Exchange::range_of(each, group.rank()).size();
    const at::Tensor whole = at::empty({each.x.size(0), tokens, heads, each.x.size(3)},
                                       each.x.options().requires_grad(false));
    for (int other = 0; other < group.size(); ++other) {
      const TokenParts parts = exchange.parts_of(other);
      each_range(exchange.by_heads.block(other).take(num_tokens(parts), heads), whole, parts,
                 [](const at::Tensor& block, const at::Tensor& place) { place.copy_(block); });
    }
    results.push_back(whole);
  }
  return results;
}

std::vector<at::Tensor> heads_to_tokens(const std::vector<MovingHeads>& moving, std::int64_t tokens,
                                        Group& group) {
  Exchange exchange(moving, tokens, group);
  for (int other = 0; other < group.size(); ++other) {
    const TokenParts parts = exchange.parts_of(other);
    for (const MovingHeads& each : moving) {
      each_range(exchange.by_heads.block(other).take(num_tokens(parts), each.x.size(2)), each.x,
                 parts,
                 [](const at::Tensor& block, const at::Tensor& place) { block.copy_(place); });
    }
  }
  move(group, exchange.by_heads, exchange.by_tokens);
  const std::int64_t T = num_tokens(exchange.parts_of(group.rank()));
  std::vector<at::Tensor> results;
  for (const MovingHeads& each : moving) {
    const bool summed = are_shared(each.heads);
    const auto dtype = each.x.scalar_type();
    const auto wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor own =
        at::zeros({each.x.size(0), T, num_heads(each.heads), each.x.size(3)},
                  each.x.options().dtype(summed ? wide : dtype).requires_grad(false));
    for (int other = 0; other < group.size(); ++other) {
      const HeadRange range = Exchange::range_of(each, other);
      const at::Tensor block = exchange.by_tokens.block(other).take(T, range.size());
      const at::Tensor place = own.narrow(2, range.begin, range.size());
      summed ? place.add_(block) : place.copy_(block);
    }
    results.push_back(own.to(dtype));
  }
  return results;
}

}  // namespace trireme::detail
