/* Starts a program on a Cortex-M board of QEMU; newlib's rdimon prints and exits by semihosting. */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t stack_top[], bss_begin[], bss_end[];
extern void initialise_monitor_handles(void);
int main(void);

void reset(void);
void reset(void)
{
    uint32_t *word;
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* the floating-point unit: full access */
    __asm__ volatile("dsb\n isb");
    for (word = bss_begin; word < bss_end; word++) {
        *word = 0;
    }
    initialise_monitor_handles();
    exit(main());
}

/* What newlib calls before and after main. */
void _init(void);
void _init(void)
{
}
void _fini(void);
void _fini(void)
{
}

static void hang(void)
{
    abort();
}

typedef union {
    void *stack;
    void (*run)(void);
} vector;

__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    {.stack = stack_top}, {.run = reset}, {.run = hang}, {.run = hang}, {.run = hang}, {.run = hang}, {.run = hang},
    {.run = hang},        {.run = hang},  {.run = hang}, {.run = hang}, {.run = hang}, {.run = hang}, {.run = hang},
    {.run = hang},        {.run = hang},
};
