// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/expert/row_exchange.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>
#include <span>

#include "trireme/comm/group.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/expert/expert_parallel.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Rows = std::vector<std::int64_t>;

at::Tensor move_rows(const at::Tensor& x_MC, const Rows& send, const Rows& receive, Group& group) {
  const TimedPart part("expert parallel");
  const std::int64_t C = x_MC.size(1);
  const std::int64_t rows = std::accumulate(receive.begin(), receive.end(), std::int64_t{0});
  const at::Tensor out = at::empty({rows, C}, x_MC.options().requires_grad(false));
  const auto elements = [C](Rows counts) {
    for (std::int64_t& count : counts) count *= C;
    return counts;
  };
  group.all_to_all(buffer_of_tensor(x_MC.contiguous()), buffer_of_tensor(out), elements(send),
                   elements(receive));
  return out;
}

struct ExchangeRows : torch::autograd::Function<ExchangeRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_MC, const Rows& send,
                            const Rows& receive, Group* group) {
    context->saved_data["group"] = reinterpret_cast<std::int64_t>(group);
    context->saved_data["send"] = send;
    context->saved_data["receive"] = receive;
    return move_rows(x_MC, send, receive, *group);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto& group = *reinterpret_cast<Group*>(context->saved_data["group"].toInt());
    const Rows send = context->saved_data["send"].toIntVector();
    const Rows receive = context->saved_data["receive"].toIntVector();
    return {move_rows(gradients[0], receive, send, group), at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor exchange_rows(const at::Tensor& x_MC, const Rows& send_rows, const Rows& receive_rows,
                         Group& group) {
  return ExchangeRows::apply(x_MC, send_rows, receive_rows, &group);
}

nn::DispatchedRows dispatch_rows(const at::Tensor& rows_MC, const Rows& rows_of_expert,
                                 Group& group) {
  const auto E = static_cast<std::int64_t>(rows_of_expert.size());
  const auto ranks = static_cast<std::size_t>(group.size());
  const auto [first, last] = experts_of_rank(E, group.rank(), group.size());
  const std::int64_t mine = last - first;

  Rows experts, send;  // of each rank
  for (int rank = 0; rank < group.size(); ++rank) {
    const auto [begin, end] = experts_of_rank(E, rank, group.size());
    experts.push_back(end - begin);
    send.push_back(std::accumulate(rows_of_expert.begin() + begin, rows_of_expert.begin() + end,
                                   std::int64_t{0}));
  }
  Rows counts(ranks * static_cast<std::size_t>(mine));  // by rank, then by expert
  group.all_to_all(const_buffer_of(std::span(rows_of_expert)), buffer_of(std::span(counts)),
                   experts, Rows(ranks, mine));
  Rows receive(ranks, 0);
  ops::RowsByExpert groups;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto expert = static_cast<std::int64_t>(i) % mine;
    receive[i / static_cast<std::size_t>(mine)] += counts[i];
    groups.push_back({expert, counts[i]});
  }
  return {exchange_rows(rows_MC, send, receive, group), std::move(groups),
          [send, receive, &group](const at::Tensor& made) {
            return exchange_rows(made, receive, send, group);
          }};
}

}  // namespace trireme::detail
