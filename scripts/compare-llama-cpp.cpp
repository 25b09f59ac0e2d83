// Runs a GGUF file in llama.cpp on given tokens. Built and called by compare-llama-cpp.py.
//
//   compare-llama-cpp MODEL greedy CONTEXT ID...   prints the 16 tokens that follow
//   compare-llama-cpp MODEL embed CONTEXT ID...    prints the pooled embedding
//   compare-llama-cpp MODEL logits CONTEXT ID...   prints the scores for the token after the last
//
// Keys and values are kept as 32-bit floats and one thread computes, so that two runs are alike.

#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static void quiet(ggml_log_level level, const char * text, void *) {
    if (level >= GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static int fail(const char * what) {
    fprintf(stderr, "%s failed\n", what);
    return 1;
}

int main(int argc, char ** argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: %s MODEL greedy|embed|logits CONTEXT ID...\n", argv[0]);
        return 2;
    }
    const bool embed = strcmp(argv[2], "embed") == 0;
    std::vector<llama_token> ids;
    for (int i = 4; i < argc; ++i) {
        ids.push_back(atoi(argv[i]));
    }

    llama_log_set(quiet, nullptr);
    llama_backend_init();
    llama_model_params model_params = llama_model_default_params();
    // Without one it prints a dot for every few tensors.
    model_params.progress_callback = [](float, void *) { return true; };
    llama_model * model = llama_model_load_from_file(argv[1], model_params);
    if (!model) {
        return fail("loading the model");
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = atoi(argv[3]);
    params.n_batch = params.n_ctx;
    params.n_ubatch = params.n_ctx;
    params.n_threads = 1;
    params.n_threads_batch = 1;
    params.type_k = GGML_TYPE_F32;
    params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.embeddings = embed;
    llama_context * context = llama_init_from_model(model, params);
    if (!context) {
        return fail("making a context");
    }

    if (embed) {
        // Decoders that embed have a cache, encoders do not; this is for both.
        if (llama_decode(context, llama_batch_get_one(ids.data(), (int32_t) ids.size())) != 0) {
            return fail("computing");
        }
        const float * values = llama_get_embeddings_seq(context, 0);
        if (!values) {
            return fail("pooling");
        }
        for (int i = 0; i < llama_model_n_embd(model); ++i) {
            printf("%.9g ", (double) values[i]);
        }
        puts("");
        return 0;
    }

    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_batch batch = llama_batch_get_one(ids.data(), (int32_t) ids.size());
    llama_token next = 0;
    for (int step = 0; step < 16; ++step) {
        if (llama_decode(context, batch) != 0) {
            return fail("decoding");
        }
        const float * logits = llama_get_logits_ith(context, -1);
        if (strcmp(argv[2], "logits") == 0) {
            for (int id = 0; id < n_vocab; ++id) {
                printf("%.9g ", (double) logits[id]);
            }
            break;
        }
        next = 0;
        for (int id = 1; id < n_vocab; ++id) {
            if (logits[id] > logits[next]) {
                next = id;
            }
        }
        printf("%d ", next);
        batch = llama_batch_get_one(&next, 1);
    }
    puts("");
    return 0;
}
