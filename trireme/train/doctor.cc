// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/doctor.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <dnnl_version.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "trireme/comm/mpi/mpi_support.h"
#include "trireme/ops/machine_rates.h"
#include "trireme/ops/threads.h"
#include "trireme/topology/host.h"

namespace trireme {
namespace {

constexpr auto kBudget = std::chrono::milliseconds(400);

// The best of a few matrix products as LibTorch does them.
double measure_torch_mm_flops_per_s() {
  constexpr std::int64_t kSize = 1024;
  constexpr int kRepeats = 6;
  const at::Tensor a = at::ones({kSize, kSize});
  double best = 0;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const at::Tensor c = at::mm(a, a);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds.count());
  }
  return best;
}

MachineFacts measure_facts() {
  MachineFacts facts;
  facts.cores = usable_cores();
  facts.cores_of_machine = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  set_compute_threads({.threads = facts.cores});
  facts.vector_units = vector_units();
  facts.blas = blas_in_use();
  facts.thread_pools = loaded_thread_pools();
  facts.blas_f32_flops_per_s = measure_torch_mm_flops_per_s();
  facts.f32_flops_per_s = measure_gemm_flops_per_s(at::kFloat, kBudget);
  facts.bf16_flops_per_s = measure_gemm_flops_per_s(at::kBFloat16, kBudget);
  facts.memory_bytes_per_s = measure_memory_bytes_per_s(kBudget);
  return facts;
}

std::string gflops(double flops_per_s) { return fmt::format("{:.0f} GFLOP/s", flops_per_s / 1e9); }

}  // namespace

std::vector<std::string> machine_advice(const MachineFacts& facts) {
  constexpr double kSlowBlas = 0.3;    // of our rate: half of what OpenBLAS reaches
  constexpr double kUsefulBf16 = 1.2;  // times the f32 rate
  std::vector<std::string> advice;
  if (facts.blas_f32_flops_per_s < kSlowBlas * facts.f32_flops_per_s) {
    // OpenBLAS older than the processor falls back to kernels of a much older one.
    const bool openblas = facts.blas.starts_with("OpenBLAS");
    const char* kernels = facts.vector_units.starts_with("AVX512") ? "SkylakeX" : "Haswell";
    advice.push_back(
        fmt::format("LibTorch's f32 matrix products run at {} on {}, {:.0f} % of what trireme's "
                    "reach, which matters to models with torch::nn layers of their own: {}",
                    gflops(facts.blas_f32_flops_per_s), facts.blas,
                    100 * facts.blas_f32_flops_per_s / facts.f32_flops_per_s,
                    openblas ? fmt::format("export OPENBLAS_CORETYPE={}", kernels)
                             : "install libopenblas0-openmp"));
  }
  if (facts.bf16_flops_per_s < kUsefulBf16 * facts.f32_flops_per_s) {
    advice.push_back(
        "bf16 is not faster than f32 on this processor: train with train.dtype=f32 unless memory "
        "is "
        "short");
  }
  if (facts.cores < facts.cores_of_machine) {
    advice.push_back(
        fmt::format("this process may use {} of {} cores (affinity or CPU quota): widen it if the "
                    "machine is yours",
                    facts.cores, facts.cores_of_machine));
  }
  if (facts.transparent_huge_pages == "never") {
    advice.push_back(
        "transparent huge pages are off: echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled");
  }
  for (std::string& sentence : thread_pool_advice(facts.thread_pools)) {
    advice.push_back(std::move(sentence));
  }
  return advice;
}

DoctorReport examine_machine() {
  MachineFacts facts = measure_facts();
  const HostInfo host = this_host();
  facts.transparent_huge_pages = host.memory.transparent_huge_pages;

  DoctorReport report;
  const auto add = [&report](std::string name, std::string finding) {
    report.findings.emplace_back(std::move(name), std::move(finding));
  };
  add("trireme", TRIREME_VERSION);
  add("LibTorch", TORCH_VERSION);
  add("oneDNN",
      fmt::format("{}.{}.{}", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH));
  for (const auto& [name, finding] : describe(host)) add(name, finding);
  add("cores", fmt::format("{} usable of {}", facts.cores, facts.cores_of_machine));
  add("vector units", facts.vector_units);
  add("BLAS of LibTorch", facts.blas);
  add("OpenMP", fmt::format("{}", fmt::join(facts.thread_pools.openmp_runtimes, ", ")));
  add("matrix rate, LibTorch f32", gflops(facts.blas_f32_flops_per_s));
  add("matrix rate, f32", gflops(facts.f32_flops_per_s));
  add("matrix rate, bf16", gflops(facts.bf16_flops_per_s));
  add("memory rate", fmt::format("{:.1f} GB/s", facts.memory_bytes_per_s / 1e9));
  const std::string mpi = mpi_library();
  add("engines", fmt::format("shm (ranks of one host), gloo (TCP between hosts){}",
                             mpi.empty() ? "; no mpi in this build" : ", mpi (" + mpi + ")"));
  report.advice = machine_advice(facts);
  return report;
}

}  // namespace trireme
