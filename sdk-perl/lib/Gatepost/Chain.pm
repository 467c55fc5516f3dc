package Gatepost::Chain;

# A chain of plugins without a core: loads the lines of config/plugins, runs hooks, and has tests put hooks of their own in front.
# A base class of Qpsmtpd.
#
# load_plugins()                       those of the flat file `plugins`; gives the plugin objects. Dies where one cannot be loaded
# _load_plugin($line, @dirs)           one; {_test_mode} appends t/plugin_tests/NAME to it
# run_hooks($hook, @arguments)         in order, until one says something other than DECLINED: (return code, texts)
# mock_hook($hook, $code), unmock_hook($hook), mock_config(NAME => value or \@values, ...), unmock_config()

use strict;
use warnings;

use Gatepost::Loader;
use Qpsmtpd::Constants;

my $MOCK = '___MockHook___';

sub load_plugins {
    my $self = shift;
    my @dirs = $self->plugin_dirs;
    return map { $self->_load_plugin($_, @dirs) } $self->config('plugins');
}

sub _load_plugin {
    my ($self, $line, @dirs) = @_;
    die "config/plugins: a line holds printable ASCII only: $line\n" if $line =~ /[^\x20-\x7e\t]/;
    my ($name, @args) = split ' ', $line;
    require Qpsmtpd::Plugin;
    if (Gatepost::Loader::is_module($name)) {
        my ($class) = Gatepost::Loader::module($name, [@dirs]);
        return _registered($self, $class->new(_gatepost => {name => $name, package => $name, dirs => [@dirs]}), @args);
    }
    (my $file = $name) =~ s/:[0-9]+\z//;
    my $path = Gatepost::Loader::find($file, [@dirs]);
    my $plugin_name = Gatepost::Loader::package_name($name);
    my $package = "Qpsmtpd::Plugin::$plugin_name";
    Qpsmtpd::Plugin->compile($plugin_name, $package, $path, $self->{_test_mode}, $file) unless $package->can('plugin_name');
    my $plugin = $package->new(_gatepost => {name => $name, package => $name, dirs => [@dirs]});
    return _registered($self, $plugin, @args);
}

sub _registered {
    my ($self, $plugin, @args) = @_;
    no warnings 'once';
    local $Qpsmtpd::Plugin::current_qp = $self;
    $plugin->_register($self, @args);
    return $plugin;
}

sub run_hooks {
    my ($self, $hook, @arguments) = @_;
    local $Qpsmtpd::Plugin::current_qp = $self;
    for my $entry ($self->hooks($hook)) {
        my ($rc, @texts) = eval { $entry->{code}->($self, $self->transaction, @arguments) };
        if ($@) {
            $self->log(LOGCRIT, "FATAL PLUGIN ERROR [$entry->{name}]: ", $@);
            next;
        }
        if (!defined $rc || !return_code($rc)) {
            my $what = defined $rc ? "\"$rc\", which is no return code" : 'undef';
            $self->log(LOGERROR, "Plugin $entry->{name}, hook $hook returned $what; taken as DECLINED");
            next;
        }
        next if $rc eq DECLINED;
        return ($rc, map { !defined || ref ? $_ : split /\n/ } @texts);
    }
    return (0, '');
}

sub run_hooks_no_respond { goto &run_hooks }

sub mock_hook {
    my ($self, $hook, $code) = @_;
    unshift @{$self->hooks->{$hook} //= []}, {name => $MOCK, code => $code};
    return;
}

sub unmock_hook {
    my ($self, $hook) = @_;
    my $entries = $self->hooks->{$hook} // return;
    @$entries = grep { $_->{name} ne $MOCK } @$entries;
    return;
}

sub mock_config {
    my ($self, %values) = @_;
    $self->mock_hook(config => sub {
        my (undef, undef, $name) = @_;
        return DECLINED unless exists $values{$name};
        return (OK, ref $values{$name} eq 'ARRAY' ? @{$values{$name}} : $values{$name});
    });
    return;
}

sub unmock_config { $_[0]->unmock_hook('config') }

1;
