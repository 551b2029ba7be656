// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/context/ring_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/ops/attention_part.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/context/context_arguments.h"
#include "trireme/parallel/context/token_parts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of the messages: keys with values, and their gradients.
constexpr int kKeysTag = 0, kGradientsTag = 1;

// A message to the next rank and one from the rank before it, under way.
class Hop {
 public:
  Hop(Group& group, at::Tensor out, at::Tensor in, int tag)
      : out_(std::move(out)), in_(std::move(in)) {
    const int n = group.size(), rank = group.rank();
    arrival_ = group.start_recv(buffer_of_tensor(in_), (rank + n - 1) % n, tag);
    try {
      departure_ = group.start_send(buffer_of_tensor(out_), (rank + 1) % n, tag);
    } catch (...) {
      settle(arrival_);
      throw;
    }
  }
  // Waits, at the latest until the group's deadline: the messages' memory goes.
  ~Hop() {
    settle(arrival_);
    settle(departure_);
  }
  Hop(const Hop&) = delete;
  Hop& operator=(const Hop&) = delete;

  // What has come.
  at::Tensor finish() {
    const TimedPart part("context parallel");
    arrival_.wait();
    departure_.wait();
    return in_;
  }

 private:
  static void settle(Work& work) {
    try {
      work.wait();
    } catch (const std::exception&) {  // the group throws it again at its next call
    }
  }

  const at::Tensor out_;
  const at::Tensor in_;
  Work arrival_;
  Work departure_;
};

// One pair of chunks: of this rank's queries and of another rank's keys.
struct Pair {
  std::size_t query = 0;
  std::size_t key = 0;
};

// What all steps of a pass have in common.
class Ring {
 public:
  Ring(Group& group, std::int64_t tokens, const ops::AttentionMask& mask)
      : group_(group), tokens_(tokens), mask_(mask), own_(parts_of(group.rank())) {}

  int steps() const { return group_.size(); }
  // Whose keys and values this rank has in a step; after the last one, its own again.
  int source(int step) const { return (group_.rank() + 2 * steps() - step) % steps(); }

  // Keys with values, or their gradients, of a rank's tokens: [2, B, T, K, D].
  at::Tensor keys_of(int rank, const at::Tensor& like, at::ScalarType dtype) const {
    const MemoryScope scope(MemoryCategory::kWorkspace);
    std::vector<std::int64_t> sizes = like.sizes().vec();
    sizes[2] = num_tokens(parts_of(rank));
    return at::empty(sizes, like.options().dtype(dtype).requires_grad(false));
  }

  // Pairs that see each other, in ascending order.
  std::vector<Pair> pairs(int rank) const {
    std::vector<Pair> pairs;
    for (std::size_t query = 0; query < 2; ++query) {
      for (std::size_t key = 0; key < 2; ++key) {
        const Pair pair{query, key};
        const auto keys = parts_of(rank)[key].size();
        if (ops::sees_any(part(rank, pair), own_[query].size(), keys)) pairs.push_back(pair);
      }
    }
    return pairs;
  }

  ops::AttentionPart part(int rank, const Pair& pair) const {
    const at::Tensor& starts = mask_.document_starts_BS;
    return {.query_begin = own_[pair.query].begin,
            .key_begin = parts_of(rank)[pair.key].begin,
            .window = mask_.window,
            .document_starts_BT = starts.defined() ? queries(starts, pair.query) : starts};
  }

  // Of this rank's tokens, along dim.
  at::Tensor queries(const at::Tensor& x, std::size_t chunk, std::int64_t dim = 1) const {
    return rows(x, dim, own_, chunk);
  }

  // Of the keys and values of a rank, as [B, K, S, D].
  ops::AttentionInputs inputs(const at::Tensor& q, const at::Tensor& keys, int rank,
                              const Pair& pair) const {
    const at::Tensor both = rows(keys, 2, parts_of(rank), pair.key).transpose(2, 3);
    return {queries(q, pair.query), both.select(0, 0), both.select(0, 1)};
  }

  // Passes keys on that this rank has in a step and gets those of the next one; nothing in the last
  // step.
  void pass_on(int step, const at::Tensor& keys, std::optional<Hop>& hop) const {
    hop.reset();
    if (step + 1 == steps()) return;
    hop.emplace(group_, keys, keys_of(source(step + 1), keys, keys.scalar_type()), kKeysTag);
  }

  // The same of gradients; in the last step those of the own keys come.
  void pass_on_gradients(int step, const at::Tensor& sums, std::optional<Hop>& hop) const {
    hop.reset();
    hop.emplace(group_, sums, keys_of(source(step + 1), sums, sums.scalar_type()), kGradientsTag);
  }

 private:
  TokenParts parts_of(int rank) const { return token_parts(tokens_, rank, group_.size()); }

  static at::Tensor rows(const at::Tensor& x, std::int64_t dim, const TokenParts& parts,
                         std::size_t chunk) {
    return x.narrow(dim, chunk == 0 ? 0 : parts[0].size(), parts[chunk].size());
  }

  Group& group_;
  const std::int64_t tokens_;
  const ops::AttentionMask mask_;
  const TokenParts own_;
};

// What backward needs beside the ring.
struct Finished {
  at::Tensor q_BTHD;
  at::Tensor keys;  // [2, B, T, K, D], this rank's
  at::Tensor out_BTHD;
  std::array<at::Tensor, 2> log_sums_BHT;  // of the chunks of queries
  at::Tensor out_grad_BTHD;
};

struct RingGradients {
  at::Tensor q_BTHD;
  at::Tensor keys;
};

class RingBackward {
 public:
  RingBackward(const Ring& ring, const Finished& finished, at::ScalarType wide)
      : ring_(ring),
        finished_(finished),
        wide_(wide),
        q_sum_(at::zeros(finished.q_BTHD.sizes(),
                         finished.q_BTHD.options().dtype(wide).requires_grad(false))) {}

  // Sums in f32 (f64).
  RingGradients run() {
    const std::vector<Pair> own_pairs = ring_.pairs(ring_.source(0));
    // Of one rank nothing is on its way meanwhile.
    const std::size_t now = own_pairs.size() - (ring_.steps() > 1 && !own_pairs.empty() ? 1 : 0);
    at::Tensor keys = finished_.keys, own_sums = zeros_of(ring_.source(0));
    std::optional<Hop> keys_hop, sums_hop;
    for (int step = 0; step < ring_.steps(); ++step) {
      if (step > 0) keys = keys_hop->finish();
      const int source = ring_.source(step);
      ring_.pass_on(step, keys, keys_hop);
      if (step == 0) {
        for (std::size_t i = 0; i < now; ++i) add(own_pairs[i], source, keys, own_sums);
        continue;
      }
      const at::Tensor sums = zeros_of(source);
      for (const Pair& pair : ring_.pairs(source)) add(pair, source, keys, sums);
      if (step > 1) sums.add_(sums_hop->finish());
      ring_.pass_on_gradients(step, sums, sums_hop);
    }
    for (std::size_t i = now; i < own_pairs.size(); ++i) {
      add(own_pairs[i], ring_.source(0), finished_.keys, own_sums);
    }
    if (sums_hop) own_sums.add_(sums_hop->finish());
    return {q_sum_, own_sums};
  }

 private:
  at::Tensor zeros_of(int rank) const { return ring_.keys_of(rank, finished_.keys, wide_).zero_(); }

  void add(const Pair& pair, int source, const at::Tensor& keys, const at::Tensor& sums) const {
    const ops::AttentionInputs to = ring_.inputs(q_sum_, sums, source, pair);
    ops::add_attention_gradients(
        ring_.inputs(finished_.q_BTHD, keys, source, pair), ring_.part(source, pair),
        {ring_.queries(finished_.out_BTHD, pair.query), finished_.log_sums_BHT[pair.query]},
        ring_.queries(finished_.out_grad_BTHD, pair.query), {to.q_BTHD, to.k_BKSD, to.v_BKSD});
  }

  const Ring& ring_;
  const Finished& finished_;
  const at::ScalarType wide_;
  const at::Tensor q_sum_;
};

struct RingAttention : torch::autograd::Function<RingAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, std::int64_t tokens, std::int64_t window,
                            const c10::optional<at::Tensor>& starts, Group* group) {
    const at::Tensor starts_BT = starts ? *starts : at::Tensor();
    const Ring ring(*group, tokens, {window, starts_BT});
    const at::Tensor own = at::stack({k.transpose(1, 2), v.transpose(1, 2)});
    ops::PartialAttention whole = ops::no_attention(q);
    std::array<ops::PartialAttention, 2> sums;
    for (std::size_t chunk = 0; chunk < 2; ++chunk) {
      sums[chunk] = {ring.queries(whole.out_BTHD, chunk),
                     ring.queries(whole.log_sums_BHT, chunk, 2).contiguous()};
    }
    at::Tensor keys = own;
    for (int step = 0; step < ring.steps(); ++step) {
      std::optional<Hop> hop;
      ring.pass_on(step, keys, hop);
      const int source = ring.source(step);
      for (const Pair& pair : ring.pairs(source)) {
        ops::add_attention(ring.inputs(q, keys, source, pair), ring.part(source, pair),
                           sums[pair.query]);
      }
      if (hop) keys = hop->finish();
    }
    const at::Tensor out = whole.out_BTHD.to(q.scalar_type());
    context->save_for_backward(
        {q, own, out, sums[0].log_sums_BHT, sums[1].log_sums_BHT, starts_BT});
    context->saved_data["tokens"] = tokens;
    context->saved_data["window"] = window;
    context->saved_data["group"] = reinterpret_cast<std::int64_t>(group);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    ops::detail::check_first_derivative();
    const auto saved = context->get_saved_variables();
    const auto number = [&](const char* key) { return context->saved_data[key].toInt(); };
    const Ring ring(*reinterpret_cast<Group*>(number("group")), number("tokens"),
                    {number("window"), saved[5]});
    const Finished finished{
        saved[0], saved[1], saved[2], {saved[3], saved[4]}, gradients[0].contiguous()};
    const RingGradients sums = RingBackward(ring, finished, saved[3].scalar_type()).run();
    const auto dtype = saved[0].scalar_type();
    const at::Tensor keys = sums.keys.to(dtype).transpose(2, 3);
    const at::Tensor none;
    return {sums.q_BTHD.to(dtype), keys.select(0, 0), keys.select(0, 1), none, none, none, none};
  }
};

}  // namespace

at::Tensor ring_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKTD,
                          const at::Tensor& v_BKTD, std::int64_t tokens,
                          const ops::AttentionMask& mask, Group& cp) {
  detail::check_context_attention(q_BTHD, k_BKTD, v_BKTD, tokens, mask, cp);
  if (cp.size() == 1) return ops::causal_attention(q_BTHD, k_BKTD, v_BKTD, mask);
  const at::Tensor& starts = mask.document_starts_BS;
  return RingAttention::apply(q_BTHD, k_BKTD, v_BKTD, tokens, mask.window,
                              starts.defined() ? c10::optional<at::Tensor>(starts) : c10::nullopt,
                              &cp);
}

}  // namespace trireme
