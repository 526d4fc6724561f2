// Multi-head attention with decomposed relative positions on the CPU, whose N x N maps exist one tile at a time.
//
// As `Attention` of segment_anything/modeling/image_encoder.py: softmax(q k^T / sqrt(d) + q R_h[y - y'] + q R_w[x - x']) v. The backward
// pass computes each tile anew from q, k and the softmax's logarithm of the sum, as flash attention does (Dao et al., 2022), but with
// whole rows, so the forward pass is the plain softmax's arithmetic.

#include "native.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

namespace native {
namespace {

/// Queries of a tile: a window of SAM's is one, the whole grid is sixteen.
constexpr int64_t TILE_QUERIES = 256;

#if defined(__x86_64__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/// exp for x <= 0 to within 2 units in the last place, after Cephes' expf; vectorised, as libm's is not. Infinities and NaN: -inf gives 0,
/// NaN stays NaN.
inline __attribute__((always_inline)) float exponential(float x) {
    const float clamped = x < -87.0f ? -87.0f : x;
    const float shifted = clamped * 1.44269504088896341f + 12582912.0f;
    const float power = shifted - 12582912.0f;
    const float r = (clamped - power * 0.693359375f) - power * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t exponent, scaled;
    std::memcpy(&exponent, &shifted, sizeof exponent);
    std::memcpy(&scaled, &p, sizeof scaled);
    scaled += exponent << 23;
    float result;
    std::memcpy(&result, &scaled, sizeof result);
    return x < -87.0f ? 0.0f : (x == x ? result : x);
}

/// Adds the relative positions to one query's logits, row and column of the key each, and tells the largest. [side * side]
inline __attribute__((always_inline)) float add_positions(float* logits, const float* by_row, const float* by_column, int64_t side) {
    float largest = -INFINITY;
    for (int64_t y = 0; y < side; ++y) {
        float* const row = logits + y * side;
        const float of_row = by_row[y];
#pragma omp simd reduction(max : largest)
        for (int64_t x = 0; x < side; ++x) {
            const float logit = row[x] + (of_row + by_column[x]);
            row[x] = logit;
            largest = logit > largest ? logit : largest;
        }
    }
    return largest;
}

/// Logits to probabilities in place; returns the logarithm of the sum of their exponentials.
FOR_EACH_PROCESSOR
float softmax(float* logits, const float* by_row, const float* by_column, int64_t side) {
    const float largest = add_positions(logits, by_row, by_column, side);
    const int64_t n = side * side;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) {
        const float e = exponential(logits[i] - largest);
        logits[i] = e;
        sum += e;
    }
    const float factor = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        logits[i] *= factor;
    }
    return largest + std::log(sum);
}

/// Logits to probabilities, and the probabilities' gradients to the logits', both in place; what falls to each row and each column of keys is
/// written to `of_row` and `of_column`.
FOR_EACH_PROCESSOR
void softmax_backward(
    float* logits,
    float* gradients,
    const float* by_row,
    const float* by_column,
    float log_sum,
    float* of_row,
    float* of_column,
    int64_t side) {
    float weighted = 0.0f;
    for (int64_t y = 0; y < side; ++y) {
        float* const row = logits + y * side;
        const float* const gradient = gradients + y * side;
        const float of_both = by_row[y] - log_sum;
#pragma omp simd reduction(+ : weighted)
        for (int64_t x = 0; x < side; ++x) {
            const float p = exponential(row[x] + (of_both + by_column[x]));
            row[x] = p;
            weighted += p * gradient[x];
        }
    }
    for (int64_t x = 0; x < side; ++x) {
        of_column[x] = 0.0f;
    }
    for (int64_t y = 0; y < side; ++y) {
        const float* const row = logits + y * side;
        float* const gradient = gradients + y * side;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t x = 0; x < side; ++x) {
            const float g = row[x] * (gradient[x] - weighted);
            gradient[x] = g;
            of_column[x] += g;
            sum += g;
        }
        of_row[y] = sum;
    }
}

/// One window of one head of one image.
struct Task {
    int64_t image;
    int64_t head;
    int64_t window;
};

/// The sizes, and where each window's tokens are.
struct Layout {
    int64_t images, height, width, dim, heads, side;

    Layout(const at::Tensor& qkv, int64_t heads, int64_t side)
        : images(qkv.size(0)), height(qkv.size(1)), width(qkv.size(2)), dim(qkv.size(3) / 3), heads(heads), side(side) {}

    int64_t head_dim() const { return dim / heads; }
    int64_t tokens() const { return side * side; }
    int64_t down() const { return (height + side - 1) / side; }
    int64_t across() const { return (width + side - 1) / side; }
    int64_t windows() const { return down() * across(); }
    int64_t table() const { return 2 * side - 1; }

    std::vector<Task> tasks() const {
        std::vector<Task> tasks;
        for (int64_t image = 0; image < images; ++image) {
            for (int64_t head = 0; head < heads; ++head) {
                for (int64_t window = 0; window < windows(); ++window) {
                    tasks.push_back({image, head, window});
                }
            }
        }
        return tasks;
    }

    /// Calls `visit` with each token's place in the window and its place on the grid, or -1 where it is padding.
    template <typename Visit>
    void each_token(const Task& task, Visit visit) const {
        const int64_t top = task.window / across() * side, left = task.window % across() * side;
        int64_t place = 0;
        for (int64_t y = top; y < top + side; ++y) {
            for (int64_t x = left; x < left + side; ++x, ++place) {
                visit(place, y < height && x < width ? (task.image * height + y) * width + x : -1);
            }
        }
    }
};

/// The task's q (0), k (1) or v (2), times a factor. [N, d]
at::Tensor gather(const at::Tensor& qkv, const at::Tensor& padding, const Layout& layout, const Task& task, int part, float factor) {
    const int64_t d = layout.head_dim(), offset = part * layout.dim + task.head * d;
    auto found = at::empty({layout.tokens(), d}, qkv.options());
    float* const to = found.mutable_data_ptr<float>();
    const float* const from = qkv.const_data_ptr<float>() + offset;
    const float* const pad = padding.const_data_ptr<float>() + offset;
    layout.each_token(task, [&](int64_t place, int64_t token) {
        const float* const source = token < 0 ? pad : from + token * 3 * layout.dim;
        for (int64_t i = 0; i < d; ++i) {
            to[place * d + i] = source[i] * factor;
        }
    });
    return found;
}

/// q's products with the tables of relative positions, turned from distance to key: of a query's row or column, from its own place.
struct Positions {
    /// [N, 2 * (2 * side - 1)]
    at::Tensor by_distance;
    int64_t side;

    /// For the query at this place, one number for each of the keys' rows and one for each of their columns.
    void of(int64_t query, float* by_row, float* by_column) const {
        const int64_t y = query / side, x = query % side, table = 2 * side - 1;
        const float* const row = by_distance.const_data_ptr<float>() + query * 2 * table;
        for (int64_t key = 0; key < side; ++key) {
            by_row[key] = row[y - key + side - 1];
            by_column[key] = row[table + x - key + side - 1];
        }
    }

    /// The way back, for gradients.
    void put(int64_t query, const float* of_row, const float* of_column) {
        const int64_t y = query / side, x = query % side, table = 2 * side - 1;
        float* const row = by_distance.mutable_data_ptr<float>() + query * 2 * table;
        for (int64_t key = 0; key < side; ++key) {
            row[y - key + side - 1] = of_row[key];
            row[table + x - key + side - 1] = of_column[key];
        }
    }
};

/// Each tile's first query, and how many.
template <typename Visit>
void each_tile(const Layout& layout, Visit visit) {
    for (int64_t first = 0; first < layout.tokens(); first += TILE_QUERIES) {
        visit(first, std::min(TILE_QUERIES, layout.tokens() - first));
    }
}

struct Attention : torch::autograd::Function<Attention> {
    /// qkv [B, H, W, 3 * dim], padding [3 * dim], tables [2 * (2 * side - 1), d] -> [B, H, W, dim]
    static at::Tensor forward(
        torch::autograd::AutogradContext* context,
        const at::Tensor& qkv_given,
        const at::Tensor& padding,
        const at::Tensor& tables,
        int64_t heads,
        int64_t side) {
        at::AutoDispatchBelowADInplaceOrView guard;
        const auto qkv = qkv_given.contiguous();
        TORCH_CHECK(qkv.dim() == 4 && qkv.is_cpu() && qkv.scalar_type() == at::kFloat, "qkv must be [B, H, W, 3 * dim], fp32 on the CPU");
        TORCH_CHECK(heads > 0 && side > 0 && qkv.size(3) % (3 * heads) == 0, "the heads must divide a third of qkv's width");
        TORCH_CHECK(padding.is_contiguous() && padding.numel() == qkv.size(3), "padding must be as wide as qkv");
        const Layout layout(qkv, heads, side);
        const int64_t d = layout.head_dim(), n = layout.tokens();
        TORCH_CHECK(
            tables.dim() == 2 && tables.size(0) == 2 * layout.table() && tables.size(1) == d, "tables must be [2 * (2 * side - 1), d]");
        auto out = at::empty({layout.images, layout.height, layout.width, layout.dim}, qkv.options());
        const auto tasks = layout.tasks();
        auto log_sums = at::empty({static_cast<int64_t>(tasks.size()), n}, qkv.options());

        at::parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
            at::AutoDispatchBelowADInplaceOrView guard;
            std::vector<float> by_row(side), by_column(side);
            for (int64_t number = begin; number < end; ++number) {
                const Task& task = tasks[number];
                const auto q = gather(qkv, padding, layout, task, 0, 1.0f);
                const auto k = gather(qkv, padding, layout, task, 1, 1.0f / std::sqrt(static_cast<float>(d)));
                const auto v = gather(qkv, padding, layout, task, 2, 1.0f);
                const Positions positions{product(q, tables), side};
                auto answer = at::empty_like(v);
                float* const log_sum = log_sums.mutable_data_ptr<float>() + number * n;
                each_tile(layout, [&](int64_t first, int64_t count) {
                    auto maps = product(q.narrow(0, first, count), k);  // [count, N]
                    float* const logits = maps.mutable_data_ptr<float>();
                    for (int64_t i = 0; i < count; ++i) {
                        positions.of(first + i, by_row.data(), by_column.data());
                        log_sum[first + i] = softmax(logits + i * n, by_row.data(), by_column.data(), side);
                    }
                    answer.narrow(0, first, count).copy_(product(maps, v.t()));
                });
                const float* const from = answer.const_data_ptr<float>();
                float* const to = out.mutable_data_ptr<float>() + task.head * d;
                layout.each_token(task, [&](int64_t place, int64_t token) {
                    if (token >= 0) {
                        std::memcpy(to + token * layout.dim, from + place * d, d * sizeof(float));
                    }
                });
            }
        });
        context->save_for_backward({qkv, padding, tables, log_sums});
        context->saved_data["heads"] = heads;
        context->saved_data["side"] = side;
        return out;
    }

    static torch::autograd::variable_list backward(
        torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
        at::AutoDispatchBelowADInplaceOrView guard;
        const auto saved = context->get_saved_variables();
        const auto &qkv = saved[0], &padding = saved[1], &tables = saved[2], &log_sums = saved[3];
        const int64_t side = context->saved_data["side"].toInt();
        const Layout layout(qkv, context->saved_data["heads"].toInt(), side);
        const int64_t d = layout.head_dim(), n = layout.tokens();
        const auto gradient = gradients[0].contiguous();
        const auto tasks = layout.tasks();
        const auto count_of_tasks = static_cast<int64_t>(tasks.size());
        auto of_qkv = at::empty_like(qkv);
        // One for each task, added up afterwards: the same sum whatever thread took which.
        auto of_padding = at::zeros({count_of_tasks, 3, d}, qkv.options());
        auto of_tables = at::empty({count_of_tasks, tables.size(0), d}, qkv.options());

        at::parallel_for(0, count_of_tasks, 1, [&](int64_t begin, int64_t end) {
            at::AutoDispatchBelowADInplaceOrView guard;
            std::vector<float> by_row(side), by_column(side), of_row(side), of_column(side);
            for (int64_t number = begin; number < end; ++number) {
                const Task& task = tasks[number];
                const float scale = 1.0f / std::sqrt(static_cast<float>(d));
                const auto q = gather(qkv, padding, layout, task, 0, 1.0f);
                const auto k = gather(qkv, padding, layout, task, 1, scale);
                const auto v = gather(qkv, padding, layout, task, 2, 1.0f);
                auto of_answer = at::zeros_like(v);
                {
                    const float* const from = gradient.const_data_ptr<float>() + task.head * d;
                    float* const to = of_answer.mutable_data_ptr<float>();
                    layout.each_token(task, [&](int64_t place, int64_t token) {
                        if (token >= 0) {
                            std::memcpy(to + place * d, from + token * layout.dim, d * sizeof(float));
                        }
                    });
                }
                const Positions positions{product(q, tables), side};
                Positions of_positions{at::zeros_like(positions.by_distance), side};
                auto of_q = at::empty_like(q);
                auto of_k = at::zeros({d, n}, q.options());
                auto of_v = at::zeros({d, n}, q.options());
                const float* const log_sum = log_sums.const_data_ptr<float>() + number * n;
                each_tile(layout, [&](int64_t first, int64_t count) {
                    const auto of_rows = of_answer.narrow(0, first, count), q_rows = q.narrow(0, first, count);
                    auto maps = product(q_rows, k);      // [count, N]
                    auto of_maps = product(of_rows, v);  // [count, N]
                    float* const logits = maps.mutable_data_ptr<float>();
                    float* const of_logits = of_maps.mutable_data_ptr<float>();
                    for (int64_t i = 0; i < count; ++i) {
                        positions.of(first + i, by_row.data(), by_column.data());
                        softmax_backward(
                            logits + i * n, of_logits + i * n, by_row.data(), by_column.data(), log_sum[first + i], of_row.data(),
                            of_column.data(), side);
                        of_positions.put(first + i, of_row.data(), of_column.data());
                    }
                    of_v.add_(product(of_rows.t(), maps.t()));
                    of_k.add_(product(q_rows.t(), of_maps.t()));
                    of_q.narrow(0, first, count).copy_(product(of_maps, k.t()));
                });
                const auto& by_distance = of_positions.by_distance;
                of_q.add_(product(by_distance, tables.t()));
                of_tables[number].copy_(product(by_distance.t(), q.t()));
                of_k = of_k.t().mul(scale);
                of_v = of_v.t();

                int part = 0;
                for (const auto& found : {of_q, of_k.contiguous(), of_v.contiguous()}) {
                    const float* const from = found.const_data_ptr<float>();
                    float* const to = of_qkv.mutable_data_ptr<float>() + part * layout.dim + task.head * d;
                    float* const pad = of_padding.mutable_data_ptr<float>() + (number * 3 + part) * d;
                    layout.each_token(task, [&](int64_t place, int64_t token) {
                        if (token >= 0) {
                            std::memcpy(to + token * 3 * layout.dim, from + place * d, d * sizeof(float));
                        } else {
                            for (int64_t i = 0; i < d; ++i) {
                                pad[i] += from[place * d + i];
                            }
                        }
                    });
                    ++part;
                }
            }
        });
        // Tasks are ordered by image, head and window.
        const auto by_head = of_padding.view({layout.images, layout.heads, -1, 3, d}).sum(at::IntArrayRef{0, 2});  // [heads, 3, d]
        return {of_qkv, by_head.transpose(0, 1).reshape({-1}), of_tables.sum(0), {}, {}};
    }
};

}  // namespace
}  // namespace native

extern "C" char* native_attention(Handle* out, Handle qkv, Handle padding, Handle tables, int64_t heads, int64_t side) noexcept {
    return guarded([&] { *out = new at::Tensor(native::Attention::apply(*qkv, *padding, *tables, heads, side)); });
}
