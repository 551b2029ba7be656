// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/attention_part.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include <limits>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"
#include "trireme/ops/attention.h"

namespace trireme {
namespace {

using ops::AttentionMask;
using ops::AttentionPart;
using testing::AttentionSizes;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::Layout;
using testing::normal;
using testing::Operation;
using testing::packed_documents;
using testing::Tensors;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Where the queries and the keys of a sequence are cut, from 0 to all of them, and in which order
// the parts of the keys come.
struct Cuts {
  std::vector<std::int64_t> queries;
  std::vector<std::int64_t> keys;
  bool last_first = false;
};

struct Parts {
  const Cuts* cuts;
  AttentionMask mask;

  // Calls f(part, query range, key range) for every pair of ranges.
  template <class F>
  void each(F f) const {
    for (std::size_t i = 0; i + 1 < cuts->queries.size(); ++i) {
      for (std::size_t j = 0; j + 1 < cuts->keys.size(); ++j) {
        const std::size_t key = cuts->last_first ? cuts->keys.size() - 2 - j : j;
        AttentionPart part{
            .query_begin = cuts->queries[i], .key_begin = cuts->keys[key], .window = mask.window};
        const auto queries = cuts->queries[i + 1] - part.query_begin;
        if (mask.document_starts_BS.defined()) {
          part.document_starts_BT = mask.document_starts_BS.narrow(1, part.query_begin, queries);
        }
        f(i, part, queries, cuts->keys[key + 1] - part.key_begin);
      }
    }
  }
};

ops::AttentionInputs inputs_of(const Tensors& whole, const AttentionPart& part, std::int64_t T,
                               std::int64_t S) {
  return {whole[0].narrow(1, part.query_begin, T), whole[1].narrow(2, part.key_begin, S),
          whole[2].narrow(2, part.key_begin, S)};
}

// Attention of whole sequences, part by part.
struct InParts : torch::autograd::Function<InParts> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const Parts* parts) {
    Tensors log_sums;
    const at::Tensor out = torch::full_like(q, std::numeric_limits<double>::quiet_NaN());
    std::vector<ops::PartialAttention> sums;
    parts->each([&](std::size_t i, const AttentionPart& part, std::int64_t T, std::int64_t S) {
      if (i == sums.size()) sums.push_back(ops::no_attention(q.narrow(1, part.query_begin, T)));
      ops::add_attention(inputs_of({q, k, v}, part, T, S), part, sums[i]);
    });
    variable_list saved{q, k, v, out};
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const auto begin = parts->cuts->queries[i];
      out.narrow(1, begin, sums[i].out_BTHD.size(1)).copy_(sums[i].out_BTHD);
      saved.push_back(sums[i].log_sums_BHT);
    }
    context->save_for_backward(saved);
    context->saved_data["parts"] = reinterpret_cast<std::int64_t>(parts);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto* parts = reinterpret_cast<const Parts*>(context->saved_data["parts"].toInt());
    const auto wide = saved[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    Tensors sums;
    for (int i = 0; i < 3; ++i) {
      sums.push_back(torch::zeros(saved[static_cast<std::size_t>(i)].sizes(), wide));
    }
    parts->each([&](std::size_t i, const AttentionPart& part, std::int64_t T, std::int64_t S) {
      const ops::AttentionInputs to = inputs_of(sums, part, T, S);
      ops::add_attention_gradients(inputs_of({saved[0], saved[1], saved[2]}, part, T, S), part,
                                   {saved[3].narrow(1, part.query_begin, T), saved[4 + i]},
                                   gradients[0].narrow(1, part.query_begin, T),
                                   {to.q_BTHD, to.k_BKSD, to.v_BKSD});
    });
    for (at::Tensor& sum : sums) sum = sum.to(saved[0].scalar_type());
    return {sums[0], sums[1], sums[2], at::Tensor()};
  }
};

Operation parts_operation(const AttentionSizes& s, const Parts* parts) {
  return {fmt::format("parts B {} T {} H {} K {} D {} window {}{} cuts {}", s.B, s.T, s.H, s.K, s.D,
                      parts->mask.window, parts->mask.document_starts_BS.defined() ? " packed" : "",
                      parts->cuts->keys.size()),
          {normal({s.B, s.T, s.H, s.D}, 0), normal({s.B, s.K, s.T, s.D}, 1),
           normal({s.B, s.K, s.T, s.D}, 2)},
          3,
          [parts](const Tensors& t) { return Tensors{InParts::apply(t[0], t[1], t[2], parts)}; }};
}

std::vector<AttentionMask> masks_of(std::int64_t B, std::int64_t T) {
  const at::Tensor starts = packed_documents(B, T, {T / 3, 1, T / 2, 5});
  return {{},
          {.window = 1},
          {.window = T / 4},
          {.document_starts_BS = starts},
          {.window = T / 5, .document_starts_BS = starts}};
}

TEST(AttentionPart, PartsAddUpToTheWhole) {
  const AttentionSizes s{.B = 2, .T = 23, .S = 23, .H = 4, .K = 2, .D = 6};
  for (const Cuts& cuts : {Cuts{{0, 23}, {0, 23}}, Cuts{{0, 5, 17, 23}, {0, 9, 10, 23}},
                           Cuts{{0, 7, 7, 23}, {0, 11, 23}, true}}) {
    for (const AttentionMask& mask : masks_of(2, 23)) {
      const Parts parts{&cuts, mask};
      const Operation operation = parts_operation(s, &parts);
      const auto whole = testing::attention_operation(s, mask);
      testing::expect_close(evaluate(operation, operation.inputs, at::kDouble),
                            evaluate(whole, whole.inputs, at::kDouble), 1e-13, operation.name);
    }
  }
}

// Query blocks of 96 and key blocks of 192 meet at places of every kind.
TEST(AttentionPart, KernelsFollowF64) {
  const Cuts cuts{{0, 97, 190, 403}, {0, 191, 200, 403}};
  const Cuts backwards{{0, 290, 403}, {0, 1, 290, 403}, true};
  for (const Cuts* each : {&cuts, &backwards}) {
    for (const AttentionMask& mask : masks_of(2, 403)) {
      const Parts parts{each, mask};
      const AttentionSizes s{.B = 2, .T = 403, .S = 403, .H = 3, .K = 1, .D = 20};
      testing::expect_follow_f64({parts_operation(s, &parts)});
    }
  }
  const Parts plain{&cuts, {}};
  testing::expect_follow_f64(
      {parts_operation({.B = 1, .T = 403, .S = 403, .H = 4, .K = 2, .D = 64}, &plain)},
      {Layout::kStrided, Layout::kExpandedGradients});
  const Cuts few{{0, 2, 5}, {0, 3, 5}};
  const Parts wide{&few, {}};
  testing::expect_follow_f64(
      {parts_operation({.B = 1, .T = 5, .S = 5, .H = 2, .K = 1, .D = 259}, &wide)});
}

// Scores up to 200, rising from part to part, or falling.
TEST(AttentionPart, LargeScoresDoNotOverflow) {
  const Cuts cuts{{0, 400}, {0, 130, 300, 400}};
  const Parts parts{&cuts, {}};
  for (const double sign : {1.0, -1.0}) {
    Operation operation =
        parts_operation({.B = 1, .T = 400, .S = 400, .H = 1, .K = 1, .D = 4}, &parts);
    operation.inputs[0] = torch::full_like(operation.inputs[0], 0.25);  // scores: half the ramp
    operation.inputs[1] =
        operation.inputs[1] + torch::arange(400, at::kDouble).view({1, 1, 400, 1}) * sign;
    // A log-sum of 200 errs by 2^-17, and with it the share of a part; what so does not cancel in
    // the gradient of q is multiplied by keys of 400.
    testing::expect_follows_f64(operation, {at::kFloat, 32 * 0x1p-17});
  }
}

TEST(AttentionPart, AQueryThatSeesNothingIsZeroAndGivesNothing) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const auto q = normal({1, 5, 2, 8}, 1).to(dtype), k = normal({1, 1, 3, 8}, 2).to(dtype),
               v = normal({1, 1, 3, 8}, 3).to(dtype), gradient = normal(q.sizes(), 4).to(dtype);
    // Queries at 4 .. 8, keys at 6 .. 8: the first two are before all keys.
    const AttentionPart part{.query_begin = 4, .key_begin = 6};
    ops::PartialAttention sum = ops::no_attention(q);
    ops::add_attention({q, k, v}, part, sum);
    EXPECT_EQ(sum.out_BTHD.narrow(1, 0, 2).abs().max().item<double>(), 0) << dtype;
    EXPECT_TRUE(sum.log_sums_BHT.narrow(2, 0, 2).isneginf().all().item<bool>()) << dtype;
    EXPECT_TRUE(sum.log_sums_BHT.narrow(2, 2, 3).isfinite().all().item<bool>()) << dtype;
    EXPECT_TRUE(sum.out_BTHD.select(1, 2).to(dtype).equal(v.select(2, 0).expand({1, 2, 8})));

    const auto wide = sum.out_BTHD.options();
    const ops::AttentionGradientSums sums{torch::zeros(q.sizes(), wide),
                                          torch::zeros(k.sizes(), wide),
                                          torch::zeros(k.sizes(), wide)};
    ops::add_attention_gradients({q, k, v}, part, {sum.out_BTHD.to(dtype), sum.log_sums_BHT},
                                 gradient, sums);
    EXPECT_EQ(sums.q_BTHD.narrow(1, 0, 2).abs().max().item<double>(), 0) << dtype;
    for (const at::Tensor& each : {sums.q_BTHD, sums.k_BKSD, sums.v_BKSD}) {
      EXPECT_TRUE(each.isfinite().all().item<bool>()) << dtype;
      EXPECT_GT(each.abs().max().item<double>(), 0.1) << dtype;
    }
  }
}

TEST(AttentionPart, KnowsWhichPartsSeeNothing) {
  constexpr std::int64_t kPlaces = 12;
  for (const AttentionMask& mask : masks_of(2, kPlaces)) {
    for (std::int64_t query = 0; query < kPlaces; ++query) {
      for (std::int64_t key = 0; key < kPlaces; ++key) {
        const std::int64_t T = std::min<std::int64_t>(2, kPlaces - query);
        AttentionPart part{.query_begin = query, .key_begin = key, .window = mask.window};
        if (mask.document_starts_BS.defined()) {
          part.document_starts_BT = mask.document_starts_BS.narrow(1, query, T);
        }
        const auto q = torch::zeros({2, T, 1, 1}), k = torch::zeros({2, 1, 3, 1});
        ops::PartialAttention sum = ops::no_attention(q);
        ops::add_attention({q, k, k}, part, sum);
        EXPECT_EQ(ops::sees_any(part, T, 3), sum.log_sums_BHT.isfinite().any().item<bool>())
            << query << ' ' << key << " window " << mask.window;
      }
    }
  }
  EXPECT_FALSE(ops::sees_any({.query_begin = 5}, 0, 3));
  EXPECT_FALSE(ops::sees_any({.query_begin = 5}, 3, 0));
}

TEST(AttentionPart, RefusesWhatDoesNotFit) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto ones = [&](at::IntArrayRef shape) { return torch::ones(shape, dtype); };
    const auto q = ones({2, 5, 4, 6}), k = ones({2, 2, 3, 6});
    const auto error = [&](const ops::AttentionInputs& inputs, const AttentionPart& part,
                           ops::PartialAttention sum) {
      return failure_of([&] { ops::add_attention(inputs, part, sum); });
    };
    const auto sum = ops::no_attention(q);
    EXPECT_EQ(error({q, k, k}, {.query_begin = 2}, sum), "no error");
    EXPECT_THAT(error({q, ones({2, 3, 3, 6}), ones({2, 3, 3, 6})}, {}, sum), HasSubstr("K divid"));
    EXPECT_THAT(error({q, k, ones({2, 2, 4, 6})}, {}, sum), HasSubstr("[2, 2, 4, 6]"));
    EXPECT_THAT(error({q, k, k.to(at::kBFloat16)}, {}, sum), HasSubstr("BFloat16"));
    EXPECT_THAT(error({q, k, k}, {.window = -1}, sum), HasSubstr("window of -1"));
    EXPECT_THAT(error({q, k, k}, {.query_begin = -3}, sum), HasSubstr("place -3"));
    EXPECT_THAT(error({q, k, k}, {.document_starts_BT = torch::zeros({2, 4}, at::kLong)}, sum),
                HasSubstr("i64 [2, 5]; got Long [2, 4]"));
    EXPECT_THAT(error({q, k, k}, {}, {sum.out_BTHD.narrow(1, 0, 4), sum.log_sums_BHT}),
                HasSubstr("out must be"));
    EXPECT_THAT(error({q, k, k}, {}, {sum.out_BTHD, sum.log_sums_BHT.to(at::kHalf)}),
                HasSubstr("log-sums must be"));
    const auto backward_error = [&](const at::Tensor& gradient, const at::Tensor& k_sum) {
      return failure_of([&] {
        ops::add_attention_gradients({q, k, k}, {}, sum, gradient,
                                     {torch::zeros_like(q), k_sum, torch::zeros_like(k)});
      });
    };
    EXPECT_EQ(backward_error(q, torch::zeros_like(k)), "no error");
    EXPECT_THAT(backward_error(q[0], torch::zeros_like(k)), HasSubstr("like the queries"));
    EXPECT_THAT(backward_error(q, torch::zeros_like(q)), HasSubstr("gradient of k must be"));
  }
  EXPECT_THAT(failure_of([] { ops::no_attention(torch::ones({2, 3})); }), HasSubstr("[2, 3]"));
}

}  // namespace
}  // namespace trireme
