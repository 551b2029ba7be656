// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor/activation_exchange.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "trireme/comm/group.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::vector<std::int64_t> even_counts(std::int64_t count, std::int64_t width, int ranks) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto [begin, end] = even_part(count, rank, ranks);
    counts.push_back((end - begin) * width);
  }
  return counts;
}

at::Tensor all_sum(const at::Tensor& x, Group& group) {
  const TimedPart part("tensor parallel");
  group.all_reduce(buffer_of_tensor(x));
  return x;
}

at::Tensor all_rows(const at::Tensor& x_nC, std::int64_t rows, Group& group) {
  const TimedPart part("tensor parallel");
  const std::int64_t C = x_nC.size(-1);
  const at::Tensor out = at::empty({rows, C}, x_nC.options().requires_grad(false));
  group.all_gather(buffer_of_tensor(x_nC.contiguous()), buffer_of_tensor(out),
                   even_counts(rows, C, group.size()));
  return out;
}

at::Tensor own_row_sums(const at::Tensor& x, Group& group) {
  const TimedPart part("tensor parallel");
  const std::int64_t C = x.size(-1), rows = C == 0 ? 0 : x.numel() / C;
  const auto [begin, end] = even_part(rows, group.rank(), group.size());
  const at::Tensor out = at::empty({end - begin, C}, x.options().requires_grad(false));
  group.reduce_scatter(buffer_of_tensor(x.contiguous()), buffer_of_tensor(out), ReduceOp::kSum,
                       even_counts(rows, C, group.size()));
  return out;
}

struct CopyToRanks : torch::autograd::Function<CopyToRanks> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, Group* group) {
    context->saved_data["group"] = reinterpret_cast<std::int64_t>(group);
    return x.view(x.sizes());
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    // A copy: others may have the gradient.
    return {all_sum(gradients[0].clone(at::MemoryFormat::Contiguous), group_of(context)),
            at::Tensor()};
  }
  static Group& group_of(AutogradContext* context) {
    return *reinterpret_cast<Group*>(context->saved_data["group"].toInt());
  }
};

struct SumOverRanks : torch::autograd::Function<SumOverRanks> {
  static at::Tensor forward(AutogradContext* /*context*/, const at::Tensor& x, Group* group) {
    return all_sum(x.detach().contiguous(), *group);
  }
  static variable_list backward(AutogradContext* /*context*/, const variable_list& gradients) {
    return {gradients[0], at::Tensor()};
  }
};

struct GatherRows : torch::autograd::Function<GatherRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_nC, std::int64_t rows,
                            Group* group) {
    context->saved_data["group"] = reinterpret_cast<std::int64_t>(group);
    return all_rows(x_nC, rows, *group);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    return {own_row_sums(gradients[0], CopyToRanks::group_of(context)), at::Tensor(), at::Tensor()};
  }
};

struct ScatterRowSums : torch::autograd::Function<ScatterRowSums> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, Group* group) {
    context->saved_data["group"] = reinterpret_cast<std::int64_t>(group);
    context->saved_data["sizes"] = x.sizes().vec();
    return own_row_sums(x, *group);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const std::vector<std::int64_t> sizes = context->saved_data["sizes"].toIntVector();
    const std::int64_t rows = c10::multiply_integers(sizes) / sizes.back();
    return {all_rows(gradients[0], rows, CopyToRanks::group_of(context)).view(sizes), at::Tensor()};
  }
};

struct GatherColumns : torch::autograd::Function<GatherColumns> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, std::int64_t columns,
                            Group* group) {
    context->saved_data["rank"] = std::int64_t{group->rank()};
    context->saved_data["ranks"] = std::int64_t{group->size()};
    const std::int64_t rows = x.numel() / x.size(-1);
    const at::Tensor blocks = at::empty({rows * columns}, x.options().requires_grad(false));
    const std::vector<std::int64_t> counts = even_counts(columns, rows, group->size());
    group->all_gather(buffer_of_tensor(x.contiguous()), buffer_of_tensor(blocks), counts);
    std::vector<std::int64_t> shape = x.sizes().vec();
    std::vector<at::Tensor> parts;
    std::int64_t begin = 0;
    for (const std::int64_t count : counts) {
      shape.back() = count / rows;
      parts.push_back(blocks.narrow(0, begin, count).view(shape));
      begin += count;
    }
    return at::cat(parts, -1);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto number = [&](const char* key) {
      return static_cast<int>(context->saved_data[key].toInt());
    };
    const auto [begin, end] = even_part(gradients[0].size(-1), number("rank"), number("ranks"));
    return {gradients[0].narrow(-1, begin, end - begin), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::pair<std::int64_t, std::int64_t> even_part(std::int64_t count, int rank, int ranks) {
  return {count * rank / ranks, count * (rank + 1) / ranks};
}

at::Tensor copy_to_ranks(const at::Tensor& x, Group& group) {
  return CopyToRanks::apply(x, &group);
}

at::Tensor sum_over_ranks(const at::Tensor& x, Group& group) {
  return SumOverRanks::apply(x, &group);
}

at::Tensor gather_rows(const at::Tensor& x_nC, std::int64_t rows, Group& group) {
  return GatherRows::apply(x_nC, rows, &group);
}

at::Tensor scatter_row_sums(const at::Tensor& x, Group& group) {
  return ScatterRowSums::apply(x, &group);
}

at::Tensor gather_columns(const at::Tensor& x, std::int64_t columns, Group& group) {
  return GatherColumns::apply(x, columns, &group);
}

}  // namespace trireme::detail
